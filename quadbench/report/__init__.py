"""HTML reports of a benchmark run, and its tables as text, CSV, Markdown and pandas data frames.

view.py               content of a run's report in order; JSON of `show --json`
launches.py           which launches count (OK, complete A B B A blocks); 8-bit shares
kpi.py                KPIs from samples, ratios, verdicts shared against per-graph
storage.py            file sizes by number of tasks, measured and extrapolated
scores.py             PSNR, galleries, difference images, quality scores, SQNR, clipping
serving_modes.py      ways to serve tasks: the fastest, the smallest, and when
provenance.py         launches table, versions, runtime settings, device states, digests
headline.py           sentences on the result, missing figures, recommended next step
condition.py          grammar and evaluation of `--fail-if`
tables.py             tables by name: KPIs, comparison, ways, a paper's; kernel counts
samples.py            all samples as data frame or CSV
sweep.py              a sweep's figures by setting, its noise, its best settings
sweep_answer.py       a sweep in sentences, tables and CSV
versus.py             a comparison of two builds: figures, verdicts, sentences, tables, CSV
night.py              a night's findings in words, first night, next command, doubts
night_formats.py      a night as JSON, terminal lines, HTML and charts
run_line.py           lists of runs and studies: status, image time; studies' JSON
formatting.py         numbers, units, ratios, percentages, plurals; text tables, Markdown, CSV
chart.py              SVG drawing: axes, ticks, lines, stacked bars, labels, legends
run_charts.py         charts of a run: images by launch, memory, bytes, time, SQNR
comparison_charts.py  charts of a comparison: forest plot, launches and battery temperature over time
sweep_charts.py       charts of a sweep: PSNR over values, quality over cost
page.py               Jinja filters, escaping, commands as code, the common style
html.py               writes HTML of runs, sweeps and comparisons; embeds images
"""
