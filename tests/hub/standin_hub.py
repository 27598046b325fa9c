"""A server on this machine that answers as the Hugging Face hub does, as far as huggingface_hub asks in these tests."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "t" * 30
_API = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(\w+)/([^/]+))?(?:/(.*))?$")
_RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


class StandInHub:
    """Repositories in memory: by kind and name, whether they are private, and their commits.

    Attributes:
        url: Address of the server.
        commits: By kind and name, hash and files of each commit, in order.
        private: By kind and name.
        requests: Method and path of everything asked for.
        tokens: Every authorization that came.
        refuse: Status with which commits are refused; 0 takes them.
    """

    def __init__(self):
        self.commits, self.private, self.requests, self.tokens, self.refuse = {}, {}, [], set(), 0
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def add_commit(self, kind, name, files):
        """A commit with these files alone; returns its hash."""
        commits = self.commits.setdefault((kind, name), [])
        content = [len(commits), sorted((path, hashlib.sha1(data).hexdigest()) for path, data in files.items())]
        sha = hashlib.sha1(json.dumps(content).encode()).hexdigest()
        commits.append((sha, dict(files)))
        self.private.setdefault((kind, name), False)
        return sha

    def files(self, kind, name, revision="main"):
        """Hash and files of a revision, or None."""
        commits = self.commits.get((kind, name), [])
        return next((item for item in reversed(commits) if revision in ("main", item[0])), None)


def _oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub = None

    def log_message(self, *_args):
        pass

    def _reply(self, value, status=200, headers=()):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in headers:
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _missing(self, code="RepoNotFound"):
        self._reply({"error": "not found"}, 404, [("X-Error-Code", code)])

    def _note(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        self.hub.tokens.add(self.headers.get("Authorization"))
        return path

    def do_GET(self):
        path = self._note()
        if match := _RESOLVE.match(path):
            kind = "dataset" if match[1] else "model"
            commit = self.hub.files(kind, match[2], match[3])
            if commit is None or match[4] not in commit[1]:
                return self._missing("EntryNotFound" if commit else "RepoNotFound")
            data = commit[1][match[4]]
            return self._reply(data, headers=[("X-Repo-Commit", commit[0]), ("ETag", f'"{_oid(data)}"')])
        match = _API.match(path)
        if match is None:
            return self._missing()
        kind, name, what, revision = match[1], match[2], match[3], match[4] or "main"
        if (kind, name) not in self.hub.commits:
            return self._missing()
        commit = self.hub.files(kind, name, revision)
        if commit is None:
            return self._missing("RevisionNotFound")
        if what == "tree":
            rows = [
                {"type": "file", "path": file, "size": len(data), "oid": _oid(data)}
                for file, data in sorted(commit[1].items())
            ]
            return self._reply(rows)
        siblings = [{"rfilename": file} for file in sorted(commit[1])]
        facts = {"id": name, "sha": commit[0], "private": self.hub.private[kind, name], "siblings": siblings}
        return self._reply({**facts, "tags": [], "downloads": 0, "likes": 0})

    do_HEAD = do_GET

    def do_POST(self):
        path = self._note()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._reply({"error": "no token"}, 401)
        if path == "/api/repos/create":
            request = json.loads(body)
            name = "/".join(part for part in (request.get("organization"), request["name"]) if part)
            kind = request.get("type", "model")
            if (kind, name) in self.hub.commits:
                return self._reply({"error": "exists", "url": self._url(kind, name)}, 409)
            self.hub.add_commit(kind, name, {".gitattributes": b"* text\n"})
            self.hub.private[kind, name] = bool(request.get("private") or request.get("visibility") == "private")
            return self._reply({"url": self._url(kind, name), "name": name, "id": name})
        if path == "/api/validate-yaml":
            return self._reply({"errors": [], "warnings": []})
        kind, name, what = _API.match(path).groups()[:3]
        if what == "preupload":
            rows = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self._reply({"files": rows})
        if self.hub.refuse:
            return self._reply({"error": "no write access"}, self.hub.refuse)
        files = dict(self.hub.files(kind, name)[1])
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        sha = self.hub.add_commit(kind, name, files)
        return self._reply({"commitOid": sha, "commitUrl": f"{self._url(kind, name)}/commit/{sha}", "success": True})

    def _url(self, kind, name):
        return f"{self.hub.url}/{'datasets/' * (kind == 'dataset')}{name}"
