#!/bin/sh
# find-python.sh NAME...: prints the first of these Pythons that starts here, by its name or path; fails if none does.
for name; do
    # pyenv puts a python3.12 on the path that only says that it is not switched on; its own are looked for behind it.
    for python in "$name" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/"$name"; do
        if "$python" -c '' 2>/dev/null; then
            echo "$python"
            exit
        fi
    done
done
exit 1
