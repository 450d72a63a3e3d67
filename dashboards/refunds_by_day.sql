-- Refunds by the day (UTC) on which the money went back: how many, and how much.
SELECT (refunded.inserted_at AT TIME ZONE 'UTC')::date AS day,
       count(*) AS refunds,
       round(sum(created.amount) / 100.0, 2) AS amount
FROM cash_outs_refunded AS refunded
JOIN cash_outs_created AS created USING (transaction_id)
GROUP BY 1
ORDER BY 1;
