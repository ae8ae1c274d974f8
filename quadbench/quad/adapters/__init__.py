"""Adapters: reading LoRA files of PEFT, diffusers and kohya. One U-Net graph takes the weights of any adapter as inputs.

loading.py       recognition of a file's format; matching of sites, shapes and ranks
lora_pairs.py    pairing of down and up per site; refusal of DoRA and OFT
peft.py          PEFT and diffusers files: configuration, rank_pattern, alpha_pattern, rsLoRA
kohya.py         kohya's key names and alpha; LoHa, LoKr and full differences
adapter.py       adapters in memory: mixes, weights, balancing, merging, random adapters
lora_profile.py  shared LoRA ranges, gauge, admission limits and judgement
inspection.py    summary of an adapter file: sites, ranks, sizes, outlier, problems
convert.py       LoHa, LoKr or full differences cut down to a LoRA
"""
