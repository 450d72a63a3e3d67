-- Cash-outs by the day (UTC) on which they were requested: how many, and how much. Refunded ones count too.
SELECT (inserted_at AT TIME ZONE 'UTC')::date AS day,
       count(*) AS cash_outs,
       round(sum(amount) / 100.0, 2) AS amount
FROM cash_outs_created
GROUP BY 1
ORDER BY 1;
