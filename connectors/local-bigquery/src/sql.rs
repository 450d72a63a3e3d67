//! The few SQL statements that `jobs.query` answers: `SELECT *` and `SELECT COUNT(*)` of one table.

use crate::store::{DatasetName, TableName};

/// The longest statement that is read, in bytes; BigQuery's own limit for a query.
const LONGEST: usize = 1024 * 1024;

/// A statement that the server can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Select {
    pub(crate) what: Selection,
    pub(crate) table: TableName,
    /// The rows asked for at most.
    pub(crate) limit: Option<usize>,
}

/// What is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// `*`
    Everything,
    /// `COUNT(*)`, under its alias or BigQuery's own name for a nameless column.
    Count { name: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Quoted(&'a str),
    Symbol(char),
}

/// Reads a statement. Unqualified names belong to `project` and `default_dataset`. The error is the sentence for the
/// caller.
pub(crate) fn parse(
    sql: &str,
    project: &str,
    default_dataset: Option<&DatasetName>,
) -> Result<Select, String> {
    if sql.len() > LONGEST {
        return Err(format!("Query too long: at most {LONGEST} bytes."));
    }
    let tokens = tokens(sql)?;
    let mut reader = Reader { tokens: &tokens };
    reader.keyword("SELECT")?;
    let what = reader.selection()?;
    reader.keyword("FROM")?;
    let table = reader.table(project, default_dataset)?;
    let limit = if reader.eat_keyword("LIMIT") { Some(reader.count()?) } else { None };
    while reader.eat_symbol(';') {}
    match reader.tokens.first() {
        None => Ok(Select { what, table, limit }),
        Some(token) => Err(unexpected(Some(token))),
    }
}

fn unexpected(token: Option<&Token<'_>>) -> String {
    let found = match token {
        None => "end of script".to_owned(),
        Some(Token::Word(word) | Token::Quoted(word)) => {
            format!("\"{}\"", word.chars().take(40).collect::<String>())
        }
        Some(Token::Symbol(symbol)) => format!("\"{symbol}\""),
    };
    format!(
        "Syntax error: Unexpected {found}. The local BigQuery answers SELECT * FROM table and SELECT COUNT(*) FROM table only."
    )
}

fn tokens(sql: &str) -> Result<Vec<Token<'_>>, String> {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '-';
    let mut tokens = Vec::new();
    let mut rest = sql.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, after) = if first == '`' {
            let body = &rest[1..];
            let end = body.find('`').ok_or("Syntax error: Unclosed identifier literal")?;
            (Token::Quoted(&body[..end]), &body[end + 1..])
        } else if is_word(first) {
            let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
            (Token::Word(&rest[..end]), &rest[end..])
        } else {
            (Token::Symbol(first), &rest[first.len_utf8()..])
        };
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

struct Reader<'t, 'a> {
    tokens: &'t [Token<'a>],
}

impl<'a> Reader<'_, 'a> {
    fn eat_keyword(&mut self, keyword: &str) -> bool {
        let found =
            matches!(self.tokens.first(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.skip_if(found)
    }

    fn eat_symbol(&mut self, symbol: char) -> bool {
        let found = self.tokens.first() == Some(&Token::Symbol(symbol));
        self.skip_if(found)
    }

    fn skip_if(&mut self, found: bool) -> bool {
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn keyword(&mut self, keyword: &str) -> Result<(), String> {
        if self.eat_keyword(keyword) { Ok(()) } else { Err(unexpected(self.tokens.first())) }
    }

    fn symbol(&mut self, symbol: char) -> Result<(), String> {
        if self.eat_symbol(symbol) { Ok(()) } else { Err(unexpected(self.tokens.first())) }
    }

    fn name(&mut self) -> Result<&'a str, String> {
        match self.tokens.split_first() {
            Some((Token::Word(name) | Token::Quoted(name), rest)) => {
                self.tokens = rest;
                Ok(name)
            }
            other => Err(unexpected(other.map(|(token, _)| token))),
        }
    }

    fn selection(&mut self) -> Result<Selection, String> {
        if self.eat_symbol('*') {
            return Ok(Selection::Everything);
        }
        self.keyword("COUNT")?;
        self.symbol('(')?;
        self.symbol('*')?;
        self.symbol(')')?;
        let from =
            matches!(self.tokens.first(), Some(Token::Word(word)) if word.eq_ignore_ascii_case("FROM"));
        let named = self.eat_keyword("AS") || !from;
        let name = if named { self.name()? } else { "f0_" };
        Ok(Selection::Count { name: name.to_owned() })
    }

    fn table(&mut self, project: &str, default_dataset: Option<&DatasetName>) -> Result<TableName, String> {
        // A back-quoted name may hold the dots itself.
        let mut path: Vec<&str> = self.name()?.split('.').collect();
        while self.eat_symbol('.') {
            path.extend(self.name()?.split('.'));
        }
        match (path.as_slice(), default_dataset) {
            ([project, dataset, table], _) => Ok(TableName::new(project, dataset, table)),
            ([dataset, table], _) => Ok(TableName::new(project, dataset, table)),
            ([table], Some(dataset)) => {
                Ok(TableName { dataset: dataset.clone(), table: (*table).to_owned() })
            }
            ([table], None) => {
                Err(format!("Table \"{table}\" must be qualified with a dataset (e.g. dataset.table)."))
            }
            _ => Err("Invalid table name: it has too many parts.".to_owned()),
        }
    }

    fn count(&mut self) -> Result<usize, String> {
        let first = self.tokens.first();
        let count = match first {
            Some(Token::Word(word)) => word.parse().ok(),
            _ => None,
        };
        let count = count.ok_or_else(|| unexpected(first))?;
        self.tokens = &self.tokens[1..];
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn select(sql: &str) -> Result<Select, String> {
        let dataset = DatasetName { project: "p-1".into(), dataset: "d".into() };
        parse(sql, "p-1", Some(&dataset))
    }

    #[test]
    fn a_table_is_named_in_one_two_or_three_parts_quoted_or_not() {
        for name in ["t", "d.t", "p-1.d.t", "`p-1.d.t`", "`p-1`.`d`.`t`", "`p-1.d`.t", "`p-1` . d . t"] {
            let statement = select(&format!("select *\nfrom {name};")).expect(name);
            assert_eq!(statement.table, TableName::new("p-1", "d", "t"), "{name}");
            assert_eq!(statement.what, Selection::Everything);
        }
    }

    #[test]
    fn a_count_has_its_alias_or_the_name_of_a_nameless_column() {
        for (sql, name) in [
            ("SELECT COUNT(*) FROM t", "f0_"),
            ("SELECT count( * ) AS n FROM t", "n"),
            ("SELECT COUNT(*) `rows` FROM t", "rows"),
        ] {
            assert_eq!(select(sql).unwrap().what, Selection::Count { name: name.into() });
        }
        assert_eq!(select("SELECT * FROM t LIMIT 5").unwrap().limit, Some(5));
    }

    #[test]
    fn anything_else_is_a_syntax_error() {
        for sql in
            ["", "SELECT 1", "SELECT * FROM", "SELECT * FROM t WHERE x", "DELETE FROM t", "SELECT * FROM `t"]
        {
            assert!(select(sql).unwrap_err().starts_with("Syntax error"), "{sql}");
        }
        assert!(select("SELECT * FROM a.b.c.d").is_err());
        assert!(parse("SELECT * FROM t", "p", None).unwrap_err().contains("qualified"));
    }

    proptest! {
        #[test]
        fn no_statement_makes_it_panic(sql in "(SELECT|COUNT|FROM|LIMIT|[*();.`,]|é|[a-z0-9-]{1,3}| ){0,20}|.{0,40}") {
            let _ = select(&sql);
        }
    }
}
