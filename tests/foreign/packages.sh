# Installs what clients need, for the runners beside it. Each function fails with a `reason`.

# fingerprint FILE...: what a mark holds of what was installed, so that nothing is asked for twice.
fingerprint() { cat "$@" | sha256sum | cut -d' ' -f1; }

# python_packages FROM INTO: a virtual environment INTO/venv with FROM/requirements.txt.
python_packages() {
    local wanted
    wanted=$(fingerprint "$1/requirements.txt")
    if [ "$(cat "$2/venv/installed" 2> /dev/null)" = "$wanted" ]; then return 0; fi
    rm -rf "$2/venv"
    if ! python3 -m venv "$2/venv" > "$2/python.log" 2>&1; then
        reason="python3 has no venv (apt-get install python3-venv)"
        return 1
    fi
    if ! "$2/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r "$1/requirements.txt" < /dev/null > "$2/python.log" 2>&1; then
        reason="pip cannot install the packages; see $2/python.log"
        return 1
    fi
    echo "$wanted" > "$2/venv/installed"
}

# node_packages FROM INTO: INTO/node/node_modules as FROM/package-lock.json says.
node_packages() {
    local wanted
    if ! command -v node > /dev/null || ! command -v npm > /dev/null; then
        reason="node or npm is missing (apt-get install nodejs npm)"
        return 1
    fi
    wanted=$(fingerprint "$1/package.json" "$1/package-lock.json")
    if [ "$(cat "$2/node/installed" 2> /dev/null)" = "$wanted" ]; then return 0; fi
    rm -rf "$2/node"
    mkdir -p "$2/node"
    cp "$1/package.json" "$1/package-lock.json" "$2/node"
    if ! (cd "$2/node" && npm ci --no-audit --no-fund --ignore-scripts) \
        < /dev/null > "$2/node.log" 2>&1; then
        reason="npm cannot install the packages; see $2/node.log"
        return 1
    fi
    echo "$wanted" > "$2/node/installed"
}
