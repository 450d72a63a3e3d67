-- What comes in and what goes out by day (UTC), and the difference. Cash-outs count on the day of their request; a
-- refund counts as coming in on the day of the refund.
SELECT day,
       round(sum(cash_in) / 100.0, 2) AS cash_ins,
       round(sum(cash_out) / 100.0, 2) AS cash_outs,
       round(sum(refund) / 100.0, 2) AS refunds,
       round(sum(cash_in - cash_out + refund) / 100.0, 2) AS net
FROM (
    SELECT (inserted_at AT TIME ZONE 'UTC')::date AS day, amount AS cash_in, 0 AS cash_out, 0 AS refund
    FROM cash_ins
    UNION ALL
    SELECT (inserted_at AT TIME ZONE 'UTC')::date, 0, amount, 0
    FROM cash_outs_created
    UNION ALL
    SELECT (refunded.inserted_at AT TIME ZONE 'UTC')::date, 0, 0, created.amount
    FROM cash_outs_refunded AS refunded
    JOIN cash_outs_created AS created USING (transaction_id)
) AS movements
GROUP BY day
ORDER BY day;
