"""Models on the Hugging Face hub: whether one can be had, in one line and at once.

The libraries that download models try an unreachable hub again for minutes, and say in many lines what is wrong.
"""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from editr1.errors import UserError, first_line

NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
PATIENCE = 10.0  # seconds
try:
    from httpx2 import HTTPError as NewerHTTPError  # what huggingface_hub 2 uses
except ModuleNotFoundError:
    NewerHTTPError = httpx.HTTPError


def is_hub_name(name: str) -> bool:
    """Whether a name has the form "owner/model", and is no path here."""
    return NAME.fullmatch(name) is not None and not Path(name).exists()


def check_hub(name: str, file: str, where: str) -> None:
    """Ask the hub for one file of a model, unless it is in the hub's cache here.

    Raises:
        UserError: The hub cannot be reached, does not know the model, or refuses it; begins with `where`.
    """
    if isinstance(try_to_load_from_cache(name, file), str):
        return
    absent = f"{where}: there is no folder {name} here, and"
    try:
        get_hf_file_metadata(hf_hub_url(name, file), timeout=PATIENCE)
    except GatedRepoError as error:
        page = f"https://huggingface.co/{name}"
        raise UserError(
            f"{where}: {name} is gated: accept its terms at {page}, then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{absent} the hub shows no such model; mend the name, or set HF_TOKEN if it is private"
        ) from error
    except EntryNotFoundError as error:
        raise UserError(f"{where}: {name} on the hub has no {file}; it is another kind of model") from error
    except HfHubHTTPError as error:
        raise UserError(f"{where}: the hub refuses {name}: {first_line(error)}; try again later") from error
    except (OSError, httpx.HTTPError, NewerHTTPError) as error:
        raise UserError(
            f"{absent} the hub cannot be reached ({first_line(error)[:120]}); mend the path, or download the model "
            "where there is a network, and give its folder"
        ) from error
