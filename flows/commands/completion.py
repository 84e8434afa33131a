"""`causeway completion`: scripts that complete commands, options and choices in a shell."""

from __future__ import annotations

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"]) -> int:
    """Print the script that completes `causeway` in a shell: commands, options, choices, file names.

    For bash put the first example into ~/.bashrc; for zsh, ~/.zfunc must be in fpath before compinit. Make the script
    again after an update: it names the commands of this version.

    Examples:
        source <(causeway completion bash)
        causeway completion zsh > ~/.zfunc/_causeway
        causeway completion fish > ~/.config/fish/completions/causeway.fish
    """
    from flows.cli import COMMANDS, GROUPS, app_of, function_of

    app = app_of()
    for name in GROUPS.keys() & COMMANDS.keys():
        # The application leaves a command that is also a group without its function until it is called.
        app[name].default(function_of(name))
    print(app.generate_completion(prog_name="causeway", shell=shell), end="")
    return 0
