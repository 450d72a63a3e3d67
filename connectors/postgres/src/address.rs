//! The two ways to write where a database is: `postgresql://…` and `key=value` words.
//!
//! Both forms: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>. Errors never repeat a
//! piece of the text: with a wrongly escaped password every piece of it may be the password.

/// Keys and values in the order in which they were written. Of a key that is there twice the last one counts.
pub(crate) type Parameters = Vec<(String, String)>;

/// Why a text names no database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressProblem {
    #[error("a % is not followed by two hexadecimal digits, or the bytes are not UTF-8")]
    Percent,
    #[error("the host holds an @")]
    AtSignInHost,
    #[error("an IPv6 address has no closing ]")]
    Bracket,
    #[error("a parameter after the ? has no =")]
    QueryWithoutEquals,
    #[error("a word has no =: words are key=value")]
    WordWithoutEquals,
    #[error("a quoted value has no closing quote")]
    Quote,
    #[error("it is empty")]
    Empty,
}

/// Takes a `url` apart.
pub(crate) fn parse(text: &str) -> Result<Parameters, AddressProblem> {
    let text = text.trim();
    if text.is_empty() {
        return Err(AddressProblem::Empty);
    }
    match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        Some(rest) => parse_url(rest),
        None => parse_words(text),
    }
}

fn parse_url(rest: &str) -> Result<Parameters, AddressProblem> {
    let mut parameters = Parameters::new();
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let hosts = match authority.split_once('@') {
        None => authority,
        Some((credentials, hosts)) => {
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            if !user.is_empty() {
                parameters.push(("user".to_owned(), decode(user)?));
            }
            if let Some(password) = password {
                parameters.push(("password".to_owned(), decode(password)?));
            }
            hosts
        }
    };
    if hosts.contains('@') {
        return Err(AddressProblem::AtSignInHost);
    }
    if !hosts.is_empty() {
        let mut names = Vec::new();
        let mut ports = Vec::new();
        for host in hosts.split(',') {
            let (name, port) = split_port(host)?;
            names.push(decode(name)?);
            ports.push(decode(port)?);
        }
        parameters.push(("host".to_owned(), names.join(",")));
        parameters.push(("port".to_owned(), ports.join(",")));
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let database = path.strip_prefix('/').unwrap_or(path);
    if !database.is_empty() {
        parameters.push(("dbname".to_owned(), decode(database)?));
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').ok_or(AddressProblem::QueryWithoutEquals)?;
        parameters.push((decode(key)?, decode(value)?));
    }
    Ok(parameters)
}

fn split_port(host: &str) -> Result<(&str, &str), AddressProblem> {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or(AddressProblem::Bracket)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((address, port)),
            None if rest.is_empty() => Ok((address, "")),
            None => Err(AddressProblem::Bracket),
        };
    }
    Ok(host.split_once(':').unwrap_or((host, "")))
}

fn decode(text: &str) -> Result<String, AddressProblem> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let [high, low, after @ ..] = rest else { return Err(AddressProblem::Percent) };
        let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(AddressProblem::Percent);
        let value = digit(*high)? * 16 + digit(*low)?;
        bytes.push(u8::try_from(value).map_err(|_| AddressProblem::Percent)?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| AddressProblem::Percent)
}

fn parse_words(text: &str) -> Result<Parameters, AddressProblem> {
    let mut parameters = Parameters::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or(AddressProblem::WordWithoutEquals)?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(AddressProblem::WordWithoutEquals);
        }
        let (value, after) = take_value(after.trim_start())?;
        parameters.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(parameters)
}

/// Takes one value off the front: up to white space, or between quotes; a backslash keeps the next character.
fn take_value(text: &str) -> Result<(String, &str), AddressProblem> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, character)| character)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            character if !quoted && character.is_whitespace() => return Ok((value, &text[at..])),
            character => value.push(character),
        }
    }
    if quoted { Err(AddressProblem::Quote) } else { Ok((value, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(expected: &[(&str, &str)]) -> Parameters {
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_url_with_everything_is_taken_apart() {
        let text = "postgresql://ali%40ce:p%40ss%2Fw@db1:6432,[::1],db3:1/ledger?sslmode=verify-full&options=-c%20a%3Db";
        let expected = pairs(&[
            ("user", "ali@ce"),
            ("password", "p@ss/w"),
            ("host", "db1,::1,db3"),
            ("port", "6432,,1"),
            ("dbname", "ledger"),
            ("sslmode", "verify-full"),
            ("options", "-c a=b"),
        ]);
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn a_socket_folder_stands_in_the_host_or_in_the_query() {
        let expected = pairs(&[("host", "/var/run/postgresql"), ("port", ""), ("dbname", "d")]);
        assert_eq!(parse("postgres://%2Fvar%2Frun%2Fpostgresql/d"), Ok(expected));
        let expected = pairs(&[("dbname", "d"), ("host", "/var/run/postgresql")]);
        assert_eq!(parse("postgresql:///d?host=/var/run/postgresql"), Ok(expected));
    }

    #[test]
    fn words_may_be_quoted_and_escaped() {
        let expected =
            pairs(&[("host", "db"), ("password", "it's \\ spaced"), ("user", "a b"), ("dbname", "")]);
        assert_eq!(parse(r"host = db password='it\'s \\ spaced' user=a\ b dbname=''"), Ok(expected));
    }

    #[test]
    fn mistakes_are_found_without_repeating_them() {
        for (text, problem) in [
            ("", AddressProblem::Empty),
            ("postgresql://u:p@ss@db/d", AddressProblem::AtSignInHost),
            ("postgresql://u:%zz@db/d", AddressProblem::Percent),
            ("postgresql://u:%4", AddressProblem::Percent),
            ("postgresql://u:%ff@db/d", AddressProblem::Percent),
            ("postgresql://[::1/d", AddressProblem::Bracket),
            ("postgresql://db/d?sslmode", AddressProblem::QueryWithoutEquals),
            ("localhost", AddressProblem::WordWithoutEquals),
            ("host=a password is=b", AddressProblem::WordWithoutEquals),
            ("password='open", AddressProblem::Quote),
        ] {
            assert_eq!(parse(text), Err(problem), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(postgresql://)?[a-z0-9@:/?&=%,'\\\\ \\[\\]é]*") {
            let _ = parse(&text);
        }

        #[test]
        fn a_quoted_word_comes_back(value in any::<String>()) {
            let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
            let parsed = parse(&format!("password='{quoted}' host=h"));
            prop_assert_eq!(parsed, Ok(vec![("password".to_owned(), value), ("host".to_owned(), "h".to_owned())]));
        }

        #[test]
        fn an_escaped_password_comes_back(value in any::<String>()) {
            let bytes: Vec<String> = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let escaped = bytes.concat();
            let parsed = parse(&format!("postgres://u:{escaped}@h")).unwrap();
            prop_assert!(parsed.contains(&("password".to_owned(), value)));
        }
    }
}
