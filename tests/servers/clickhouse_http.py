#!/usr/bin/env python3
"""ClickHouse's HTTP interface over the real ClickHouse engine, for the project's tests.

    clickhouse_http.py --port 0 --data DIR [--user NAME --password WORD] [--port-file FILE]

The engine (parser, types, MergeTree, deduplication, formats, error codes) is ClickHouse itself, in
this process through `chdb`. What is written here is only the way to it: requests, settings,
parameters, compression, authentication, the HTTP status of an error.

Promises:
- Every request has an engine connection of its own, so its settings end with it and requests run in
  parallel.
- The rows of an INSERT reach the engine byte for byte, whatever bytes they are, while they arrive.
  An INSERT whose body breaks off is cancelled.
- A response is sent when the engine is done: it is the whole result, or an error and no row. One
  ArrowStream answer is one IPC stream.
- What a server offers and this does not (sessions, roles, external tables, block-compressed
  responses, zstd) is refused with NOT_IMPLEMENTED, never ignored. Not reproduced: grants and quotas,
  cancellation of a query whose client has gone, server-side batching of asynchronous inserts.

With port 0 the system chooses a free port of the loopback. The port is printed, and written to the
port file, once requests are answered. Acknowledged rows survive SIGKILL; SIGTERM ends it at once.
"""

import argparse
import base64
import gzip
import io
import json
import os
import re
import signal
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import chdb
import lz4.block
import lz4.frame
from chdb.state.sqlitelike import Connection
from clickhouse_cityhash.cityhash import CityHash128

PIECE = 1 << 20

# The server's table, by the name of the error; every other error is 500.
HTTP_STATUS = {
    name: status
    for status, names in {
        401: "REQUIRED_PASSWORD",
        403: "UNKNOWN_USER WRONG_PASSWORD AUTHENTICATION_FAILED SET_NON_GRANTED_ROLE ACCESS_DENIED",
        400: """BAD_ARGUMENTS CANNOT_COMPILE_REGEXP CANNOT_PARSE_TEXT CANNOT_PARSE_ESCAPE_SEQUENCE
                CANNOT_PARSE_QUOTED_STRING CANNOT_PARSE_DATE CANNOT_PARSE_DATETIME CANNOT_PARSE_NUMBER
                CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING CANNOT_PARSE_IPV4 CANNOT_PARSE_IPV6 CANNOT_PARSE_UUID
                CANNOT_PARSE_INPUT_ASSERTION_FAILED DUPLICATE_COLUMN ILLEGAL_COLUMN THERE_IS_NO_COLUMN
                UNKNOWN_ELEMENT_IN_AST UNKNOWN_TYPE_OF_AST_NODE TOO_DEEP_AST TOO_BIG_AST
                UNEXPECTED_AST_STRUCTURE SYNTAX_ERROR INCORRECT_DATA TYPE_MISMATCH
                VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE""",
        404: """UNKNOWN_TABLE UNKNOWN_FUNCTION UNKNOWN_IDENTIFIER UNKNOWN_TYPE UNKNOWN_STORAGE UNKNOWN_DATABASE
                UNKNOWN_SETTING UNKNOWN_DIRECTION_OF_SORTING UNKNOWN_AGGREGATE_FUNCTION UNKNOWN_FORMAT
                UNKNOWN_DATABASE_ENGINE UNKNOWN_TYPE_OF_QUERY UNKNOWN_ROLE""",
        408: "TIMEOUT_EXCEEDED",
        411: "HTTP_LENGTH_REQUIRED",
        413: "QUERY_IS_TOO_LARGE",
        415: "UNSUPPORTED_MEDIA_TYPE",
        501: "NOT_IMPLEMENTED",
        503: "SOCKET_TIMEOUT CANNOT_OPEN_FILE CANNOT_SCHEDULE_TASK",
    }.items()
    for name in names.split()
}

# URL parameters that speak to the HTTP interface; all others are settings of the engine.
INTERFACE_PARAMETERS = {
    "query", "database", "default_format", "user", "password", "decompress", "query_id",
    "wait_end_of_query", "buffer_size", "quota_key",
}
NOT_OFFERED = {"session_id", "session_check", "session_timeout", "role", "compress", "client_protocol_version"}


class ServerError(Exception):
    """An error as a ClickHouse server words it: with a number, a text and a name."""

    def __init__(self, code: int, name: str, text: str):
        super().__init__(f"Code: {code}. DB::Exception: {text} ({name}) (version {chdb.engine_version})\n")
        self.code = code
        self.status = HTTP_STATUS.get(name, 500)

    @classmethod
    def of_engine(cls, error: Exception) -> "ServerError":
        found = re.search(r"Code: (\d+)\. DB::Exception: (.*) \((\w+)\)(?: \(version [^()]*\))?\s*$", str(error), re.S)
        if not found:
            return cls(1001, "STD_EXCEPTION", f"{type(error).__name__}: {error}")
        code, text, name = found.groups()
        return cls(int(code), name, text)


class ClientGone(Exception):
    """The request broke off: nobody is left to answer."""


# Statements

TOKEN = re.compile(
    rb"(?P<blank>\s+|--[^\n]*|/\*.*?\*/)"
    rb"|(?P<quoted>'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\")"
    rb"|(?P<word>\w+)|(?P<sign>.)",
    re.S,
)
BEFORE_ROWS = re.compile(rb"[ \t\f]*\r?\n?")


def tokens(sql: bytes):
    """The tokens that mean something, lazily: what follows them may be rows and not SQL."""
    return (token for token in TOKEN.finditer(sql) if not token["blank"])


def split_insert(sql: bytes) -> tuple[bytes, str, bytes] | None:
    """Splits `INSERT INTO t FORMAT x <rows>` or `INSERT INTO t VALUES <rows>` into the statement, the
    format, and the rows that follow in the same text. None when the statement brings no rows of its own.

    The engine itself must never see rows inside a statement: it ends them at an empty line, and reports
    success for the part before, so that binary rows with the bytes 0A 0A would be lost.
    """
    rest = tokens(sql)
    if not (first := next(rest, None)) or first[0].upper() != b"INSERT":
        return None
    depth, selects = 0, False
    for token in rest:
        depth += {b"(": 1, b")": -1}.get(token["sign"], 0)
        word = (token["word"] or b"").upper()
        if depth > 0:
            continue
        if word in (b"SELECT", b"WITH", b"INFILE"):
            selects = True
        elif word == b"VALUES" and not selects:
            return sql[: token.start()], "Values", sql[token.end() :]
        elif word == b"FORMAT":
            if selects:
                raise ServerError(48, "NOT_IMPLEMENTED", "INSERT ... SELECT with rows of its own is not offered here")
            if not (name := next(rest, None)) or not name["word"]:
                raise ServerError(62, "SYNTAX_ERROR", "FORMAT without the name of a format")
            rows = BEFORE_ROWS.match(sql, name.end()).end()
            return sql[: token.start()], name["word"].decode(), sql[rows:]
    return None


def literal(value: str) -> bytes:
    """A value as a string literal of SQL; the engine converts it to the setting's type."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return b"'" + escaped.encode("utf-8", "surrogateescape") + b"'"


# Request bodies

class Body(io.RawIOBase):
    """The bytes of a request's body, in either framing of HTTP/1.1. Raises ClientGone when it breaks off."""

    def __init__(self, stream, headers):
        self.stream = stream
        self.chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        self.left = 0 if self.chunked else int(headers.get("Content-Length") or 0)
        self.ended = not self.chunked and self.left == 0

    def readable(self):
        return True

    def readinto(self, buffer):
        if self.left == 0 and not self.ended:
            self._next_chunk()
        if self.ended:
            return 0
        count = self.stream.readinto(memoryview(buffer)[: self.left])
        if not count:
            raise ClientGone
        self.left -= count
        if self.left == 0:
            if self.chunked:
                self._line()
            else:
                self.ended = True
        return count

    def _next_chunk(self):
        try:
            self.left = int(self._line().split(b";")[0], 16)
        except ValueError:
            raise ClientGone from None
        if self.left == 0:
            self.ended = True
            while self._line():
                pass  # trailers

    def _line(self) -> bytes:
        line = self.stream.readline(PIECE)
        if not line.endswith(b"\n"):
            raise ClientGone
        return line.strip()


def drain(body):
    while body.read(PIECE):
        pass


def native_blocks(body):
    """Decompresses ClickHouse's own framing: checksum, method, both sizes, block."""
    while checksum := body.read(16):
        head = body.read(9)
        stored, size = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:9], "little")
        block = body.read(max(0, stored - 9))
        if len(head) < 9 or len(block) != stored - 9:
            raise ServerError(33, "CANNOT_READ_ALL_DATA", "The body ends within a compressed block")
        # The package holds the halves the other way round.
        halves = CityHash128(head + block).to_bytes(16, "little")
        if checksum != halves[8:] + halves[:8]:
            raise ServerError(40, "CHECKSUM_DOESNT_MATCH", "Checksum doesn't match: corrupted data")
        if head[0] == 0x82:
            yield lz4.block.decompress(block, uncompressed_size=size)
        elif head[0] == 0x02:
            yield block
        else:
            raise ServerError(48, "NOT_IMPLEMENTED", f"Compression method {head[0]:#x} is not offered here")


def plain_pieces(body, encoding: str):
    """The body without its Content-Encoding."""
    match encoding:
        case "" | "identity":
            pass
        case "gzip":
            body = gzip.GzipFile(fileobj=body)
        case "lz4":
            body = lz4.frame.LZ4FrameFile(body)
        case _:
            raise ServerError(48, "NOT_IMPLEMENTED", f"Content-Encoding {encoding} is not offered here")
    while piece := body.read(PIECE):
        yield piece


def form_fields(content_type: str, form: bytes) -> dict[str, str]:
    """The fields of a multipart/form-data body."""
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if not boundary:
        raise ServerError(36, "BAD_ARGUMENTS", "multipart/form-data without a boundary")
    fields = {}
    for part in (b"\r\n" + form).split(b"\r\n--" + boundary[1].encode())[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        if b"filename=" in head:
            raise ServerError(48, "NOT_IMPLEMENTED", "External tables are not offered here")
        name = re.search(rb'name="([^"]*)"', head)
        fields[name[1].decode() if name else ""] = value.decode("utf-8", "surrogateescape")
    return fields


# The interface

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def do_GET(self):
        self.handle_request(read_only=True)

    def do_POST(self):
        self.handle_request(read_only=False)

    def handle_request(self, read_only: bool):
        path, _, query_string = self.path.partition("?")
        body = io.BufferedReader(Body(self.rfile, self.headers), PIECE)
        try:
            if path == "/ping" or (path == "/" and not query_string and read_only):
                drain(body)
                self.respond(200, b"Ok.\n")
            elif path == "/":
                self.run(query_string, body, read_only)
            else:
                drain(body)
                self.respond(404, f"There is no handle {path}\n".encode())
        except ServerError as error:
            self.refuse(error, body)
        except (ClientGone, ConnectionError):
            self.close_connection = True

    def run(self, query_string: str, body: io.BufferedReader, read_only: bool):
        given = dict(urllib.parse.parse_qsl(query_string, keep_blank_values=True, errors="surrogateescape"))
        self.authenticate(given)

        pieces = self.body_pieces(given, body)
        sql = given.get("query", "").encode("utf-8", "surrogateescape")
        insert = split_insert(sql)
        if not insert:
            sql += (b"\n" if sql else b"") + b"".join(pieces)
            pieces = iter(())
            insert = split_insert(sql)

        with Connection(str(self.server.data)) as engine:
            try:
                self.configure(engine, given, read_only)
                if insert:
                    summary, answer = self.insert(engine, *insert, pieces), b""
                else:
                    summary, answer = self.query(engine, sql, given)
            except (ServerError, ClientGone, ConnectionError):
                raise
            except Exception as error:
                raise ServerError.of_engine(error) from error
            self.answer(given, summary, answer)

    def authenticate(self, given: dict[str, str]):
        user, password = "default", ""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            user, _, password = base64.b64decode(token).decode().partition(":")
        user = self.headers.get("X-ClickHouse-User", given.get("user", user))
        password = self.headers.get("X-ClickHouse-Key", given.get("password", password))
        if (user, password) != self.server.credentials:
            text = f"{user}: Authentication failed: password is incorrect, or there is no user with such name."
            raise ServerError(516, "AUTHENTICATION_FAILED", text)

    def body_pieces(self, given: dict[str, str], body: io.BufferedReader):
        """The body as the client meant it; fields of a form go to `given` instead."""
        content_type = self.headers.get("Content-Type", "")
        if content_type.startswith("multipart/form-data"):
            given |= form_fields(content_type, body.read())
            return iter(())
        if given.get("decompress") == "1":
            return native_blocks(body)
        return plain_pieces(body, self.headers.get("Content-Encoding", "").lower())

    def configure(self, engine: Connection, given: dict[str, str], read_only: bool):
        database = given.get("database") or self.headers.get("X-ClickHouse-Database")
        if database:
            engine.query(b"USE `" + database.replace("\\", "\\\\").replace("`", "\\`").encode() + b"`")
        for name, value in given.items():
            if name in NOT_OFFERED:
                raise ServerError(48, "NOT_IMPLEMENTED", f"Parameter {name} is not offered here")
            if name in INTERFACE_PARAMETERS:
                continue
            if not re.fullmatch(r"\w+", name):
                raise ServerError(115, "UNKNOWN_SETTING", f"Unknown setting '{name}'")
            engine.query(b"SET " + name.encode() + b" = " + literal(value))
        if read_only:
            engine.query("SET readonly = 2")

    def query(self, engine: Connection, sql: bytes, given: dict[str, str]) -> tuple[dict[str, int], bytes]:
        if not any(tokens(sql)):
            raise ServerError(62, "SYNTAX_ERROR", "Syntax error: Empty query")
        # The engine would run all the statements of a script; a server takes one.
        if engine._conn.classify_query(sql)["statement_count"] > 1:
            raise ServerError(62, "SYNTAX_ERROR", "Syntax error: Multi-statements are not allowed")
        default_format = given.get("default_format") or self.headers.get("X-ClickHouse-Format") or "TabSeparated"
        result = engine.query(sql, default_format)
        summary = {
            "read_rows": result.storage_rows_read(),
            "read_bytes": result.storage_bytes_read(),
            "written_rows": result.rows_written(),
            "written_bytes": result.bytes_written(),
            "result_rows": result.rows_read(),
            "result_bytes": result.size(),
            "elapsed_ns": int(result.elapsed() * 1e9),
        }
        return summary, result.bytes()

    def insert(self, engine: Connection, statement: bytes, name: str, rows: bytes, pieces) -> dict[str, int]:
        with engine.send_insert(statement, name) as stream:
            if rows:
                stream.append(rows)
            for piece in pieces:
                stream.append(piece)
            result = stream.finish()
        return {
            "written_rows": result.rows_written,
            "written_bytes": result.bytes_written,
            "elapsed_ns": int(result.elapsed * 1e9),
        }

    def answer(self, given: dict[str, str], summary: dict[str, int], answer: bytes):
        headers = {
            "X-ClickHouse-Summary": json.dumps({key: str(value) for key, value in summary.items()}),
            "X-ClickHouse-Query-Id": given.get("query_id") or str(uuid.uuid4()),
        }
        if answer and "lz4" in self.headers.get("Accept-Encoding", ""):
            answer = lz4.frame.compress(answer)
            headers["Content-Encoding"] = "lz4"
        self.respond(200, answer, headers)

    def refuse(self, error: ServerError, body: io.BufferedReader):
        self.close_connection = True
        headers = {"X-ClickHouse-Exception-Code": str(error.code), "Connection": "close"}
        self.respond(error.status, str(error).encode("utf-8", "replace"), headers)
        # Closing with bytes unread would reset the connection, and the client might lose the error.
        try:
            drain(body)
        except (ClientGone, ConnectionError):
            pass

    def respond(self, status: int, answer: bytes, headers: dict[str, str] = {}):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(answer)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, data: Path, credentials: tuple[str, str]):
        super().__init__(("127.0.0.1", port), Handler)
        self.data, self.credentials = data, credentials


def main():
    parser = argparse.ArgumentParser(description="ClickHouse's HTTP interface over the engine, for tests.")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one")
    parser.add_argument("--data", type=Path, required=True, help="folder of the databases, made when absent")
    parser.add_argument("--user", default="default")
    parser.add_argument("--password", default="")
    parser.add_argument("--port-file", type=Path, help="receives the port once requests are answered")
    options = parser.parse_args()

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options.data.mkdir(parents=True, exist_ok=True)
    credentials = (options.user, options.password)
    # The engine closes the data folder with its last connection and opening it is dear, so one stays open.
    with Connection(str(options.data)), Server(options.port, options.data, credentials) as server:
        port = server.server_address[1]
        if options.port_file:
            partial = options.port_file.with_name(options.port_file.name + ".partial")
            partial.write_text(f"{port}\n")
            os.replace(partial, options.port_file)
        print(port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
