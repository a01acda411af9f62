"""A git repository served over HTTP, as forges do: for the tests of what fetches from one."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server

from dulwich.objects import Blob, Commit, ObjectID, Tag, Tree
from dulwich.repo import Repo
from dulwich.server import DictBackend
from dulwich.web import WSGIRequestHandlerLogger, make_wsgi_chain

PLAIN, LINK, FOLDER, SUBMODULE = 0o100644, 0o120000, 0o040000, 0o160000
WHO = b"Ada <ada@example.com>"


@dataclass(slots=True)
class GitServer:
    """Where a repository is served, and what was asked of it."""

    url: str
    repository: Repo
    credentials: str = ""
    """`user:password` that must be given; empty: none."""
    redirect: str = ""
    """Where every call is sent on to; empty: nowhere."""
    seen: list[str] = field(default_factory=list)

    def commit(self, files: Mapping[str, str | tuple[int, bytes]], branch: str = "main") -> str:
        """Add a commit with these files alone, text or (mode, content); return its hash."""
        commit = Commit()
        commit.tree = self._tree(files)
        ref = f"refs/heads/{branch}".encode()
        refs: Any = self.repository.refs
        commit.parents = [refs[ref]] if ref in refs else []
        commit.author = commit.committer = WHO
        commit.author_time = commit.commit_time = 1_700_000_000
        commit.author_timezone = commit.commit_timezone = 0
        commit.message = b"a commit"
        self.repository.object_store.add_object(commit)
        refs[ref] = commit.id
        return commit.id.decode()

    def tag(self, name: str, commit: str) -> None:
        """Put an annotated tag on a commit."""
        tag = Tag()
        tag.name, tag.object = name.encode(), (Commit, ObjectID(commit.encode()))
        tag.tagger, tag.message = WHO, b"a tag"
        tag.tag_time, tag.tag_timezone = 1_700_000_000, 0
        self.repository.object_store.add_object(tag)
        refs: Any = self.repository.refs
        refs[f"refs/tags/{name}".encode()] = tag.id

    def _tree(self, files: Mapping[str, str | tuple[int, bytes]]) -> Any:
        tree, folders = Tree(), dict[str, dict[str, str | tuple[int, bytes]]]()
        for path, content in files.items():
            name, slash, rest = path.partition("/")
            if slash:
                folders.setdefault(name, {})[rest] = content
                continue
            mode, data = (PLAIN, content.encode()) if isinstance(content, str) else content
            blob = Blob.from_string(data)
            self.repository.object_store.add_object(blob)
            tree.add(name.encode(), mode, data if mode == SUBMODULE else blob.id)  # type: ignore[arg-type]
        for name, inner in folders.items():
            tree.add(name.encode(), FOLDER, self._tree(inner))
        self.repository.object_store.add_object(tree)
        return tree.id


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandlerLogger):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[GitServer]:
    """Serve a new repository on a free port."""
    folder.mkdir()
    repository = Repo.init_bare(str(folder), default_branch=b"main")
    repositories: dict[str, Any] = {"/": repository}
    git: Any = make_wsgi_chain(DictBackend(repositories))
    server: GitServer

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        server.seen.append(f"{environ['PATH_INFO']} {environ.get('HTTP_AUTHORIZATION', '')}")
        if server.redirect:
            query = f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else ""
            start("302 Found", [("Location", server.redirect + environ["PATH_INFO"] + query)])
            return []
        wanted = base64.b64encode(server.credentials.encode()).decode()
        if server.credentials and environ.get("HTTP_AUTHORIZATION") != f"Basic {wanted}":
            start("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="git"')])
            return []
        answer: Iterable[bytes] = git(environ, start)
        return answer

    with make_server("127.0.0.1", 0, application, _Server, _Quiet) as http:
        server = GitServer(f"http://127.0.0.1:{http.server_port}", repository)
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
            repository.close()
