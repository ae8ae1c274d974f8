"""The view `kpis`: which samples are kept -> its definition, for the revisions."""


def kpis_view(kept: str) -> str:
    """One row for each figure of a run, over the samples `s` of records `r` for which the condition `kept` holds.

    Different labels are different figures (a cold adapter load is not a resident one). p50 is the median, NULL below 11
    samples, as in the reports.
    """
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
