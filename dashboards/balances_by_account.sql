-- What the events did to each account: in with a cash-in, out with a processed cash-out, back with a refund. What is
-- pending has not left yet. The balance counts from the first event on, so it may be negative. Both sides of a
-- transfer inside the service have events of their own: only account_id is booked.
SELECT account_id,
       round(sum(cash_in) / 100.0, 2) AS cash_ins,
       round(sum(cash_out) / 100.0, 2) AS cash_outs,
       round(sum(cash_in - cash_out) / 100.0, 2) AS balance,
       round(sum(pending) / 100.0, 2) AS pending
FROM (
    SELECT account_id, amount AS cash_in, 0 AS cash_out, 0 AS pending
    FROM cash_ins
    UNION ALL
    SELECT created.account_id,
           0,
           CASE WHEN refunded.transaction_id IS NULL AND processed.transaction_id IS NOT NULL THEN created.amount ELSE 0 END,
           CASE WHEN refunded.transaction_id IS NULL AND processed.transaction_id IS NULL THEN created.amount ELSE 0 END
    FROM cash_outs_created AS created
    LEFT JOIN cash_outs_processed AS processed USING (transaction_id)
    LEFT JOIN cash_outs_refunded AS refunded USING (transaction_id)
) AS events
GROUP BY account_id
ORDER BY balance DESC, account_id;
