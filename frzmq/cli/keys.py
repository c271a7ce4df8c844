"""``frzmq keys``: a recorder's directory of keys, and the key files of those that it admits."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from frzmq.cli.common import Subparsers, add_json, command, note, print_json, print_table

if TYPE_CHECKING:
    from frzmq.recorder.keyring import KeyDirectory

ROLES = {
    "tracer": "record, each process as itself only",
    "viewer": "ask for status, flushes and snapshots",
    "operator": "do what a viewer may, and start and stop the recording",
}


def add_parser(subparsers: Subparsers, summary: str) -> None:
    examples = (
        "  frzmq keys init /etc/frzmq/keys\n"
        "  frzmq keys add /etc/frzmq/keys checkout --role tracer --role viewer -o checkout.key\n"
        "  frzmq keys list /etc/frzmq/keys\n"
        "  frzmq keys revoke /etc/frzmq/keys checkout"
    )
    actions = command(subparsers, "keys", summary, examples).add_subparsers(required=True, metavar="ACTION")

    init = command(actions, "init", "make a directory of keys, with a pair for the recorder")
    add = command(
        actions,
        "add",
        "admit a new client, and write its key file, mode 0600, which is to go to its host",
        "\n".join(f"  --role {role:9} may {may}" for role, may in ROLES.items()),
    )
    names = command(actions, "list", "who is admitted, and as what")
    revoke = command(actions, "revoke", "admit a client no more; a recorder that runs cuts it off")
    for parser in (init, add, names, revoke):
        parser.add_argument("directory", metavar="DIR", help="of the keys, as for frzmq recorder --keys")
    for parser in (add, revoke):
        parser.add_argument("name", metavar="NAME", help="of the client: letters, digits, '.', '_' and '-'")
    add.epilog = (add.epilog or "").replace("examples:", "roles:")
    add.add_argument("--role", action="append", required=True, choices=tuple(ROLES), help="again for more")
    add.add_argument("-o", "--output", metavar="FILE", help="its key file (default: NAME.key)")
    add_json(names)
    init.set_defaults(run=run_init)
    add.set_defaults(run=run_add)
    names.set_defaults(run=run_list)
    revoke.set_defaults(run=run_revoke)


def _directory(args: argparse.Namespace) -> KeyDirectory:
    from frzmq.recorder.keyring import KeyDirectory

    return KeyDirectory(args.directory)


def run_init(args: argparse.Namespace) -> int:
    from frzmq.transport.sockets import new_pair

    print(f"public key {_directory(args).init(new_pair)}")
    return 0


def run_add(args: argparse.Namespace) -> int:
    from frzmq.recorder.keyring import parse_roles
    from frzmq.transport.sockets import new_pair

    path = args.output or f"{args.name}.key"
    _directory(args).add(args.name, parse_roles(args.role, "--role"), path, new_pair)
    note(f"{path}: move it to the host of {args.name}, and say FRZMQ_KEY={path} or --key {path} there")
    return 0


def run_list(args: argparse.Namespace) -> int:
    clients = _directory(args).clients()
    rows = [(client.name, ",".join(sorted(role.value for role in client.roles)), client.public) for client in clients]
    if args.json:
        print_json([{"name": name, "roles": roles.split(","), "public": public} for name, roles, public in rows])
    else:
        print_table(("name", "roles", "public key"), rows, left=3)
    return 0


def run_revoke(args: argparse.Namespace) -> int:
    _directory(args).revoke(args.name)
    return 0
