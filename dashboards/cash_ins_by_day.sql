-- Cash-ins by day (UTC): how many, and how much.
SELECT (inserted_at AT TIME ZONE 'UTC')::date AS day,
       count(*) AS cash_ins,
       round(sum(amount) / 100.0, 2) AS amount
FROM cash_ins
GROUP BY 1
ORDER BY 1;
