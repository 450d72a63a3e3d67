-- Seconds from request to processed, by the day (UTC) of the request: half of that day's cash-outs, and 95 % of them,
-- took so long or less.
SELECT (created.inserted_at AT TIME ZONE 'UTC')::date AS day,
       round(extract(epoch FROM percentile_disc(0.5)
           WITHIN GROUP (ORDER BY processed.inserted_at - created.inserted_at)), 3) AS median_seconds,
       round(extract(epoch FROM percentile_disc(0.95)
           WITHIN GROUP (ORDER BY processed.inserted_at - created.inserted_at)), 3) AS p95_seconds
FROM cash_outs_created AS created
JOIN cash_outs_processed AS processed USING (transaction_id)
GROUP BY 1
ORDER BY 1;
