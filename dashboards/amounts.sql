-- How large the amounts are. The median is an amount that occurs.
SELECT kind,
       count(*) AS transactions,
       round(sum(amount) / 100.0, 2) AS total,
       round(avg(amount) / 100.0, 2) AS average,
       round(min(amount) / 100.0, 2) AS smallest,
       round(percentile_disc(0.5) WITHIN GROUP (ORDER BY amount) / 100.0, 2) AS median,
       round(max(amount) / 100.0, 2) AS largest
FROM (
    SELECT 'cash-ins' AS kind, amount FROM cash_ins
    UNION ALL
    SELECT 'cash-outs' AS kind, amount FROM cash_outs_created
) AS transactions
GROUP BY kind
ORDER BY kind;
