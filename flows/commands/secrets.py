"""Commands on secrets: the server's password, and the credentials of places."""

from __future__ import annotations

import asyncio
import sys

from flows.commands import DEFAULT_HOME, Home, Json, print_json


def secrets_auth(*, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Make the user and password of this folder's Prefect server, if it has none; print the file, never its content.

    The server, its workers and every command of this folder use them from their next start on. To change them, delete
    the file, run this again, and start the server again.

    Examples:
        causeway secrets auth
    """
    from flows.credentials import auth_file, make_auth

    known = auth_file(home.absolute()).exists()
    path = make_auth(home.absolute())
    if json:
        print_json({"path": str(path), "made": not known})
    else:
        print(path)
    return 0


def secrets_set(place: str, name: str, *, home: Home = DEFAULT_HOME) -> int:
    """Put a credential of a place into its Prefect Secret block; the value comes from standard input.

    Deployed runs at the place get it under its own name. All deployed runs get it under the place's name as well
    (CAUSEWAY_NORTH_AWS_SECRET_ACCESS_KEY): it is what a store with credentials=north in its URL is opened with.

    Examples:
        causeway secrets set north AWS_SECRET_ACCESS_KEY < key-file
        causeway secrets set north CAUSEWAY_WEST_AWS_SECRET_ACCESS_KEY < key-of-north-to-west

    Parameters
    ----------
    place:
        home, a site of sites.toml, or a name after credentials= there.
    name:
        AWS_*, AZURE_*, GOOGLE_* or HF_TOKEN; after CAUSEWAY_<NAME>_: a key to another place's store.
    """
    from flows.credentials import check_name, set_credential
    from flows.server import use_running

    check_place(home, place)
    check_name(name, "secrets set")
    if sys.stdin.isatty():
        from getpass import getpass

        value = getpass(f"{name} of {place}: ")
    else:
        value = sys.stdin.read()
    use_running(home)
    asyncio.run(set_credential(place, name, value.removesuffix("\n").removesuffix("\r")))
    print(f"{place}: {name} is set")
    return 0


def secrets_list(place: str, *, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """List the names of a place's credentials; values are never shown.

    Examples:
        causeway secrets list north

    Parameters
    ----------
    place:
        home, a site of sites.toml, or a name after credentials= there.
    """
    from flows.credentials import read_credentials
    from flows.server import use_running

    check_place(home, place)
    use_running(home)
    names = sorted(asyncio.run(read_credentials(place)))
    if json:
        print_json({"place": place, "names": names})
    else:
        print("\n".join(names) or f"{place}: no credentials")
    return 0


def check_place(home: Home, place: str) -> None:
    """Check that a place is home, a site, or a name that a store's URL gives.

    Raises:
        CausewayError: it is none; lists those there are.
    """
    from data_contracts.catalog.store_opening import credentials_of
    from data_contracts.errors import CausewayError
    from training.workspace import Workspace

    places = Workspace.open(home).sites.places
    known = [site.name for site in places]
    urls = [url for site in places for url in (site.store_url, site.tables_url or "")]
    known += sorted({credentials_of(url) for url in urls} - {"", *known})
    if place not in known:
        raise CausewayError(f"no place {place!r} in sites.toml; it has: {', '.join(known)}")
