#!/usr/bin/env python3
"""Gives Metabase its first user, a PostgreSQL database, and the dashboard of a manifest such as dashboards/transactions.json.

    provision.py MANIFEST

Reads from the environment:

    METABASE_URL        where Metabase answers                  http://localhost:3000
    METABASE_EMAIL      the first user, who is made if there is none
    METABASE_PASSWORD   their password; Metabase wants some length and a digit
    DATABASE_HOST, DATABASE_PORT (5432), DATABASE_NAME, DATABASE_USER, DATABASE_PASSWORD
                        the database as Metabase reaches it
    METABASE_TIMEOUT    how many seconds all of it may take     600

What is there already is compared and only changed where it differs, so that running this again changes nothing. Cards
that people have put on the dashboard stay. At the end every question is asked once; what does not answer, because its
tables are not there yet, is asked again until the time is up.

Exit codes: 0 all there and answering, 1 not, 2 wrong usage. Needs Python 3.9 and nothing else. The calls are those of
Metabase's API documentation (https://www.metabase.com/docs/latest/api).
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

REQUEST_SECONDS = 60
PAUSE_SECONDS = 2
# Of what Metabase or PostgreSQL says about a failure.
MESSAGE_CHARACTERS = 300


class ProvisioningError(Exception):
    """What went wrong, and the way out."""


class NotAnswering(ProvisioningError):
    """Metabase is away or starting: worth another attempt."""


class Refused(ProvisioningError):
    """Metabase has answered with an error status."""

    def __init__(self, call, status, reason):
        super().__init__(f"Metabase refused {call} with status {status}: {reason}")
        self.status = status


class Settings:
    """What the environment says."""

    def __init__(self, environment):
        missing = []

        def text(name, default=None):
            value = environment.get(name) or default
            if value is None:
                missing.append(name)
            return value

        self.url = text("METABASE_URL", "http://localhost:3000").rstrip("/")
        self.email = text("METABASE_EMAIL")
        self.password = text("METABASE_PASSWORD")
        self.database_host = text("DATABASE_HOST")
        self.database_name = text("DATABASE_NAME")
        self.database_user = text("DATABASE_USER")
        self.database_password = text("DATABASE_PASSWORD")
        if missing:
            raise ProvisioningError(f"not set in the environment: {', '.join(missing)}")
        self.database_port = whole_number("DATABASE_PORT", text("DATABASE_PORT", "5432"))
        self.timeout = whole_number("METABASE_TIMEOUT", text("METABASE_TIMEOUT", "600"))


def whole_number(name, text):
    if not text.isdecimal():
        raise ProvisioningError(f"{name} must be a whole number")
    return int(text)


def reason_of(body):
    """The words of an error answer, without what was sent."""
    try:
        answer = json.loads(body)
    except ValueError:
        return "no reason given"
    if isinstance(answer, str):
        words = answer
    elif isinstance(answer, dict):
        errors = answer.get("errors")
        words = answer.get("message") or answer.get("error")
        if not words and isinstance(errors, dict):
            words = "; ".join(f"{key}: {value}" for key, value in errors.items())
    else:
        words = None
    return first_line(words) if words else "no reason given"


def first_line(words):
    return str(words).strip().split("\n")[0][:MESSAGE_CHARACTERS]


class Metabase:
    """The API of one Metabase."""

    def __init__(self, url, deadline):
        self.url = url
        self.deadline = deadline
        self.session = None

    def call(self, method, path, body=None):
        """The parsed answer of one request; None where it is empty."""
        request = urllib.request.Request(
            f"{self.url}{path}", method=method, data=None if body is None else json.dumps(body).encode()
        )
        request.add_header("Content-Type", "application/json")
        request.add_header("Accept", "application/json")
        if self.session:
            request.add_header("X-Metabase-Session", self.session)
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            answer = error.read()
            if error.code in (502, 503, 504):
                raise NotAnswering(f"Metabase answers {method} {path} with status {error.code}") from None
            raise Refused(f"{method} {path}", error.code, reason_of(answer)) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise NotAnswering(f"{self.url} does not answer: {reason}") from None
        if not answer:
            return None
        try:
            return json.loads(answer)
        except ValueError:
            raise ProvisioningError(f"{self.url}{path} answers with something that is not JSON; is it a Metabase?") from None

    def wait_until(self, attempt):
        """Repeats `attempt` while Metabase does not answer, until it returns something."""
        while True:
            failure = None
            try:
                answer = attempt()
                if answer is not None:
                    return answer
            except NotAnswering as error:
                failure = error
            if time.monotonic() >= self.deadline:
                raise failure or ProvisioningError("the time is up; METABASE_TIMEOUT gives more")
            time.sleep(PAUSE_SECONDS)


def log(text):
    print(f"provision: {text}", flush=True)


def wait_for_health(metabase):
    def healthy():
        answer = metabase.call("GET", "/api/health")
        return True if isinstance(answer, dict) and answer.get("status") == "ok" else None

    metabase.wait_until(healthy)


def log_in(metabase, settings):
    """Makes the first user where there is none, and logs in as that user."""
    properties = metabase.call("GET", "/api/session/properties")
    # The token stays after the setup in some versions; `has-user-setup` tells.
    token = properties.get("setup-token")
    if token and not properties.get("has-user-setup"):
        answer = metabase.call(
            "POST",
            "/api/setup",
            {
                "token": token,
                "user": {
                    "email": settings.email,
                    "password": settings.password,
                    "first_name": "txconnect",
                    "last_name": "Admin",
                    "site_name": "txconnect",
                },
                "prefs": {"site_name": "txconnect", "site_locale": "en", "allow_tracking": False},
            },
        )
        metabase.session = answer["id"]
        log("first user: made")
        return
    try:
        answer = metabase.call("POST", "/api/session", {"username": settings.email, "password": settings.password})
    except Refused as error:
        if error.status in (400, 401):
            raise ProvisioningError(
                "this Metabase has users already, and none with METABASE_EMAIL and METABASE_PASSWORD: set them to an "
                "administrator of it"
            ) from None
        raise
    metabase.session = answer["id"]
    log("first user: there already")


def ensure_database(metabase, settings, name):
    details = {
        "host": settings.database_host,
        "port": settings.database_port,
        "dbname": settings.database_name,
        "user": settings.database_user,
    }
    wanted = {
        "name": name,
        "engine": "postgres",
        "details": {**details, "password": settings.database_password, "ssl": False, "tunnel-enabled": False},
    }
    listed = metabase.call("GET", "/api/database")
    databases = listed["data"] if isinstance(listed, dict) else listed
    found = [database for database in databases if database["name"] == name and database["engine"] == "postgres"]
    if not found:
        database = metabase.call("POST", "/api/database", wanted)
        log(f"database {name}: made")
        return database["id"]
    database = metabase.call("GET", f"/api/database/{found[0]['id']}")
    # The password never comes back, so another one cannot be seen here; the questions below would not answer.
    there = database.get("details") or {}
    if all(str(there.get(key)) == str(value) for key, value in details.items()):
        log(f"database {name}: there already")
    else:
        metabase.call("PUT", f"/api/database/{database['id']}", wanted)
        log(f"database {name}: changed")
    return database["id"]


def ensure_collection(metabase, manifest):
    name = manifest["name"]
    for collection in metabase.call("GET", "/api/collection"):
        # The list begins with the root, whose id is a word.
        if collection.get("name") == name and isinstance(collection.get("id"), int) and not collection.get("archived"):
            log(f"collection {name}: there already")
            return collection["id"]
    made = metabase.call("POST", "/api/collection", {"name": name, "description": manifest["description"]})
    log(f"collection {name}: made")
    return made["id"]


def items_of(metabase, collection, model):
    answer = metabase.call("GET", f"/api/collection/{collection}/items?models={model}&limit=1000&offset=0")
    return {item["name"]: item["id"] for item in answer["data"]}


def sql_of(query):
    """The SQL of a question, in the form before Metabase 57 and in the one since."""
    if "stages" in query:
        return query["stages"][0].get("native")
    return (query.get("native") or {}).get("query")


def ensure_card(metabase, card, sql, database, collection, there):
    wanted = {
        "name": card["name"],
        "description": card["description"],
        "display": card["display"],
        "visualization_settings": card["settings"],
    }
    query = {"type": "native", "database": database, "native": {"query": sql}}
    identity = there.get(card["name"])
    if identity is None:
        made = metabase.call("POST", "/api/card", {**wanted, "dataset_query": query, "collection_id": collection})
        log(f"question {card['name']}: made")
        return made["id"]
    found = metabase.call("GET", f"/api/card/{identity}")
    found_query = found["dataset_query"]
    same = all(found.get(key) == value for key, value in wanted.items())
    if same and sql_of(found_query) == sql and found_query.get("database") == database:
        log(f"question {card['name']}: there already")
    else:
        metabase.call("PUT", f"/api/card/{identity}", {**wanted, "dataset_query": query})
        log(f"question {card['name']}: changed")
    return identity


def ensure_dashboard(metabase, manifest, cards, collection):
    name = manifest["name"]
    identity = items_of(metabase, collection, "dashboard").get(name)
    if identity is None:
        description = manifest["description"]
        made = metabase.call(
            "POST", "/api/dashboard", {"name": name, "description": description, "collection_id": collection}
        )
        identity = made["id"]
        log(f"dashboard {name}: made")
    there = metabase.call("GET", f"/api/dashboard/{identity}").get("dashcards") or []
    # Only the first card of a question is ours, should somebody have put it there twice.
    by_question = {}
    for dashcard in there:
        by_question.setdefault(dashcard.get("card_id"), dashcard)
    dashcards, changed, new_id = [], False, 0
    for question, card in cards:
        place = card["place"]
        wanted = {"col": place["column"], "row": place["row"], "size_x": place["width"], "size_y": place["height"]}
        found = by_question.get(question)
        if found is None:
            # Metabase makes a new one for each id below 0.
            new_id -= 1
            found = {"id": new_id, "card_id": question, "parameter_mappings": [], "visualization_settings": {}}
        if any(found.get(key) != value for key, value in wanted.items()):
            changed = True
        dashcards.append({**found, **wanted})
    if changed:
        ours = {dashcard["id"] for dashcard in dashcards}
        # What is not in the list is taken off the dashboard.
        others = [dashcard for dashcard in there if dashcard["id"] not in ours]
        metabase.call("PUT", f"/api/dashboard/{identity}", {"dashcards": dashcards + others})
        log(f"dashboard {name}: {len(cards)} cards placed")
    else:
        log(f"dashboard {name}: there already")
    return identity


def ask(metabase, question, name):
    """Asks a question until it answers: the tables are made when the first records arrive."""
    complaint = None

    def answered():
        nonlocal complaint
        answer = metabase.call("POST", f"/api/card/{question}/query")
        if answer.get("status") == "completed":
            return answer
        told = first_line(answer.get("error") or "it did not complete")
        if told != complaint:
            log(f"question {name} does not answer yet: {told}")
            complaint = told
        return None

    try:
        return metabase.wait_until(answered)
    except ProvisioningError as error:
        raise ProvisioningError(
            f"question {name} does not answer ({complaint or error}). Does txconnect write into this database, and may "
            "DATABASE_USER read its tables? Otherwise METABASE_TIMEOUT gives more time"
        ) from None


def provision(manifest_path, environment):
    settings = Settings(environment)
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    statements = {card["sql"]: (manifest_path.parent / card["sql"]).read_text(encoding="utf-8") for card in manifest["cards"]}
    metabase = Metabase(settings.url, time.monotonic() + settings.timeout)
    wait_for_health(metabase)
    log_in(metabase, settings)
    database = ensure_database(metabase, settings, manifest["name"])
    collection = ensure_collection(metabase, manifest)
    there = items_of(metabase, collection, "card")
    cards = [
        (ensure_card(metabase, card, statements[card["sql"]], database, collection, there), card) for card in manifest["cards"]
    ]
    dashboard = ensure_dashboard(metabase, manifest, cards, collection)
    for question, card in cards:
        ask(metabase, question, card["name"])
    log(f"all {len(cards)} questions answer; the dashboard is {settings.url}/dashboard/{dashboard}")


def main(arguments):
    if len(arguments) != 1:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        provision(Path(arguments[0]), os.environ)
    except (ProvisioningError, OSError, ValueError, KeyError) as error:
        reason = f"the answer or the manifest has no {error}" if isinstance(error, KeyError) else error
        print(f"provision: {reason}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
