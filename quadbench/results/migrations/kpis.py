"""The view `kpis`: which samples are kept -> its definitions, for the revisions: all samples of a run pooled, or by launch."""

_FIGURE = "run_id, device_address, variant, task, component, metric, labels"


def kpis_by_launch_view(kept: str, *, peaks: str) -> str:
    """One row for each figure of a run, over the samples `s` of records `r` for which the condition `kept` holds.

    Different labels are different figures (a cold adapter load is not a resident one). p50 is the median of the launches'
    medians, as in the reports; of the metrics `peaks` that of the launches' maxima, since a launch needs its highest.
    """
    return f"""
CREATE VIEW kpis AS
WITH kept AS (
    SELECT r.run_id, r.device_address, r.variant, s.task, s.component, s.metric, CAST(s.labels AS TEXT) AS labels,
           s.record, s.value,
           ROW_NUMBER() OVER (
               PARTITION BY s.record, s.task, s.component, s.metric, CAST(s.labels AS TEXT) ORDER BY s.value
           ) AS place,
           COUNT(*) OVER (PARTITION BY s.record, s.task, s.component, s.metric, CAST(s.labels AS TEXT)) AS n
    FROM samples s JOIN records r ON r.id = s.record
    WHERE {kept}
), launches AS (
    SELECT {_FIGURE}, COUNT(*) AS n, MIN(value) AS minimum, SUM(value) AS total, MAX(value) AS maximum,
           CASE WHEN metric IN ({peaks}) THEN MAX(value)
                ELSE AVG(CASE WHEN 2 * place BETWEEN n AND n + 2 THEN value END) END AS typical
    FROM kept
    GROUP BY record, {_FIGURE}
), placed AS (
    SELECT launches.*, ROW_NUMBER() OVER (PARTITION BY {_FIGURE} ORDER BY typical) AS place,
           COUNT(*) OVER (PARTITION BY {_FIGURE}) AS of_launches
    FROM launches
)
SELECT run_id, device_address AS device, task, variant, component, metric, labels,
       COUNT(*) AS launches, CAST(SUM(n) AS BIGINT) AS n, MIN(minimum) AS minimum, SUM(total) / SUM(n) AS mean,
       AVG(CASE WHEN 2 * place BETWEEN of_launches AND of_launches + 2 THEN typical END) AS p50,
       MAX(maximum) AS maximum
FROM placed
GROUP BY {_FIGURE}
"""


def kpis_view(kept: str) -> str:
    """The view before revision 0008, whose p50 is the median of all samples of a run together, NULL below 11 samples."""
    return f"""
CREATE VIEW kpis AS
WITH kept AS (
    SELECT r.run_id, r.device_address, r.variant, s.task, s.component, s.metric, CAST(s.labels AS TEXT) AS labels,
           r.launch, s.value,
           ROW_NUMBER() OVER (
               PARTITION BY r.run_id, r.device_address, r.variant, s.task, s.component, s.metric, CAST(s.labels AS TEXT)
               ORDER BY s.value
           ) AS place,
           COUNT(*) OVER (
               PARTITION BY r.run_id, r.device_address, r.variant, s.task, s.component, s.metric, CAST(s.labels AS TEXT)
           ) AS n
    FROM samples s JOIN records r ON r.id = s.record
    WHERE {kept}
)
SELECT run_id, device_address AS device, task, variant, component, metric, labels,
       COUNT(DISTINCT launch) AS launches, COUNT(*) AS n, MIN(value) AS minimum, AVG(value) AS mean,
       CASE WHEN COUNT(*) >= 11 THEN AVG(CASE WHEN 2 * place BETWEEN n AND n + 2 THEN value END) END AS p50,
       MAX(value) AS maximum
FROM kept
GROUP BY run_id, device_address, task, variant, component, metric, labels
"""
