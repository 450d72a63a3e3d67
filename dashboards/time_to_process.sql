-- Seconds from a cash-out's request to its being processed: for so much of them it took that long or less.
SELECT round(100 * share, 1) AS percent,
       round(extract(epoch FROM seconds), 3) AS seconds
FROM (
    SELECT percentile_disc(ARRAY[0.5, 0.75, 0.9, 0.95, 0.99, 1.0])
               WITHIN GROUP (ORDER BY processed.inserted_at - created.inserted_at) AS percentiles
    FROM cash_outs_created AS created
    JOIN cash_outs_processed AS processed USING (transaction_id)
) AS durations
CROSS JOIN LATERAL unnest(ARRAY[0.5, 0.75, 0.9, 0.95, 0.99, 1.0], percentiles) AS points (share, seconds)
WHERE seconds IS NOT NULL
ORDER BY percent;
