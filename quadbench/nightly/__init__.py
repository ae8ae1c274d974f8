"""Measure recipes or bundles on devices every night, judge changes, keep histories, and bisect for the files behind a regression.

night_file.py       the model of night.yaml: cases, devices, limits, blocks, time budget
night_plan.py       night.yaml read and checked: sources, reference bundles (yardsticks), device names
perform.py          one night: measuring, image scores, confirming launches, stored verdicts, resuming
launcher.py         comparisons on this machine's devices, the retry of failed ones, their stored measurements
farm_launcher.py    comparisons as jobs on a farm, cancelled without time or a fitting slot
pool_watch.py       what a farm's pool serves; patience while it does not answer
series.py           scales and limits of changes, usual nights (the baseline), last good files
verdicts.py         suspected changes, rules that turn them into verdicts, effect of acknowledgements
night_report.py     a night's results with earlier nights, and its exit code
exports.py          JUnit XML, webhook messages
history.py          a case's segments between level shifts, summary sentences, bisection for bad files
history_formats.py  histories as list, JSON and content of the live page
history_chart.py    the SVG chart of a metric over nights
"""
