"""A repository on the Hub that is brought to a given content, in commits of all or nothing."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile

from hf_models.errors import InputError, reason
from hf_models.inference.hub_requests import HUB_ID

Content = Mapping[str, Path | bytes]
CommitOperation = CommitOperationAdd | CommitOperationDelete


def check_repo_id(repo_id: str) -> None:
    """Refuse what is not `ORG/NAME`."""
    if not HUB_ID.fullmatch(repo_id):
        raise InputError(f"--repo: expected ORG/NAME, got {repo_id}.")


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turn what the Hub answers, or that it does not, into one line."""
    try:
        yield
    except InputError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        advice = {
            401: "Log in with `hf auth login`.",
            403: "The token may not write there.",
            412: "It was changed at the same time. Run the command again.",
        }.get(status, "Run the command again: what was sent is kept.")
        raise InputError(f"{repo_id}: the Hub refused ({reason(error)[:200]}). {advice}") from error
    except HFValidationError as error:
        raise InputError(f"{repo_id}: {reason(error)[:200]}") from error
    except Exception as error:  # the Hub library and its transport share no base class
        raise InputError(
            f"{repo_id}: not pushed ({type(error).__name__}: {reason(error)[:200]}). Run the command again: what was "
            "sent is kept."
        ) from error


class Repository:
    """A branch of a repository.

    Args:
        api: The client.
        repo_id: `ORG/NAME`.
        repo_type: `"model"` or `"kernel"`.
        branch: The branch.
    """

    def __init__(self, api: HfApi, repo_id: str, repo_type: str = "model", branch: str = "main"):
        self.api, self.branch = api, branch
        self.where = {"repo_id": repo_id, "repo_type": repo_type}

    def create(self, private: bool = False) -> None:
        """Make repository and branch where they are not there yet.

        Raises:
            InputError: It is to be private, and is there and public.
        """
        self.api.create_repo(**self.where, private=private or None, exist_ok=True)
        if private and not self.api.repo_info(**self.where).private:
            raise InputError(
                f"{self.where['repo_id']}: exists and is public. Change that on the Hub, or drop --private."
            )
        if self.branch != "main":
            self.api.create_branch(**self.where, branch=self.branch, exist_ok=True)

    def head(self) -> str:
        """The last commit."""
        return self.api.repo_info(**self.where, revision=self.branch).sha

    def text(self, path: str, revision: str) -> str:
        """A text file of a commit, empty if it is not there."""
        if not self.api.file_exists(self.where["repo_id"], path, repo_type=self.where["repo_type"], revision=revision):
            return ""
        return Path(self.api.hf_hub_download(**self.where, filename=path, revision=revision)).read_text("utf-8")

    def changes(
        self, content: Content, head: str, replaces: Callable[[str], bool] = lambda path: False
    ) -> list[CommitOperation]:
        """What has to be done to the last commit so that it holds `content`.

        Args:
            content: Path -> file or bytes.
            head: The last commit.
            replaces: Whether a path that is there, and not in `content`, is to be deleted.
        """
        tree = self.api.list_repo_tree(**self.where, revision=head, recursive=True)
        present = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        additions = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in content.items()]
        gone = sorted(path for path in present if path not in content and replaces(path))
        changed = [addition for addition in additions if not _same(addition, present.get(addition.path_in_repo))]
        return [*changed, *(CommitOperationDelete(path) for path in gone)]

    def commit(self, changes: list[CommitOperation], message: str, head: str) -> str:
        """Make one commit of the changes.

        Large files are sent first, those that are there already are not sent again, and nothing is visible before the
        commit at the end. A push that was interrupted goes on where it was.

        Args:
            changes: See `changes`.
            message: Message of the commit.
            head: The last commit; if it is not any more, the Hub refuses.

        Returns:
            The commit.
        """
        return self.api.create_commit(
            **self.where, operations=changes, commit_message=message, revision=self.branch, parent_commit=head
        ).oid


def _same(addition: CommitOperationAdd, present: RepoFile | None) -> bool:
    if present is None or present.size != addition.upload_info.size:
        return False
    if present.lfs:
        return present.lfs.sha256 == addition.upload_info.sha256.hex()
    with addition.as_file() as file:
        data = file.read()
    return present.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # as git names it
