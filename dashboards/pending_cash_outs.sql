-- Cash-outs that were requested and have neither been processed nor refunded, the oldest first.
SELECT created.transaction_id,
       created.account_id,
       round(created.amount / 100.0, 2) AS amount,
       created.inserted_at AS requested_at
FROM cash_outs_created AS created
WHERE NOT EXISTS (SELECT FROM cash_outs_processed AS processed WHERE processed.transaction_id = created.transaction_id)
  AND NOT EXISTS (SELECT FROM cash_outs_refunded AS refunded WHERE refunded.transaction_id = created.transaction_id)
ORDER BY created.inserted_at, created.transaction_id;
