-- The cash-outs of each day (UTC) on which they were requested, by where they stand now.
SELECT (created.inserted_at AT TIME ZONE 'UTC')::date AS day,
       count(*) FILTER (WHERE processed.transaction_id IS NULL AND refunded.transaction_id IS NULL) AS pending,
       count(*) FILTER (WHERE processed.transaction_id IS NOT NULL AND refunded.transaction_id IS NULL) AS processed,
       count(*) FILTER (WHERE refunded.transaction_id IS NOT NULL) AS refunded
FROM cash_outs_created AS created
LEFT JOIN cash_outs_processed AS processed USING (transaction_id)
LEFT JOIN cash_outs_refunded AS refunded USING (transaction_id)
GROUP BY 1
ORDER BY 1;
