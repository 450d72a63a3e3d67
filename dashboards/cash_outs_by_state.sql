-- Where the cash-outs stand now. Events of one cash-out may arrive in any order: the furthest one counts.
SELECT state,
       count(*) AS cash_outs,
       round(sum(amount) / 100.0, 2) AS amount
FROM (
    SELECT created.amount,
           CASE
               WHEN refunded.transaction_id IS NOT NULL THEN 'refunded'
               WHEN processed.transaction_id IS NOT NULL THEN 'processed'
               ELSE 'pending'
           END AS state
    FROM cash_outs_created AS created
    LEFT JOIN cash_outs_processed AS processed USING (transaction_id)
    LEFT JOIN cash_outs_refunded AS refunded USING (transaction_id)
) AS cash_outs
GROUP BY state
ORDER BY array_position(ARRAY['pending', 'processed', 'refunded'], state);
