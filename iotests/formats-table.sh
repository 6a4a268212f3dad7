#!/bin/bash
# SPDX-License-Identifier: MIT
# The table of docs/formats.md is true: what a format can do is found out by doing it. What a cell says behind a semicolon is for the
# format's own tests.
. "$(dirname "$0")/lib.sh"
any_backend
requires qemu-img qemu-io python3

columns=(create read write "compressed write" "rewrite of compressed" snapshots backing resize check)
# Of each row, by its first cell without links: FORMAT:CREATION-OPTIONS of what must all be as it says.
declare -A rows=(
    [qcow2]="qcow2: qcow2:compat=0.10"
    ["qcow2 with a data file"]="qcow2:data_file=data.raw"
    [raw]="raw:"
    [vdi]="vdi: vdi:static=on"
    ["vmdk monolithicSparse, twoGbMaxExtentSparse"]="vmdk:subformat=monolithicSparse vmdk:subformat=twoGbMaxExtentSparse"
    ["vmdk monolithicFlat, twoGbMaxExtentFlat"]="vmdk:subformat=monolithicFlat vmdk:subformat=twoGbMaxExtentFlat"
    ["vmdk streamOptimized"]="vmdk:subformat=streamOptimized vmdk:subformat=streamOptimized,footer=on"
    ["vmdk with COWD or seSparse extents"]="vmdk:subformat=cowd vmdk:subformat=sesparse"
    ["vpc (VHD)"]="vpc: vpc:subformat=fixed"
    ["vhdx dynamic, fixed"]="vhdx:block_size=1M vhdx:block_size=1M,subformat=fixed"
    ["qcow (version 1)"]="qcow:"
    [dmg]="dmg:"
    [parallels]="parallels:"
)

# ---- what one image can do; each function prints a cell ----

works() { timeout 60 "$@" >>log 2>&1; }

says_yes() {    # COMMAND...
    if works "$@"; then echo yes; else echo no; fi
}

# All of the io commands succeed, and find the bytes that they look for.
does() {        # IO-ARGUMENTS... -- COMMAND...
    local -a arguments=()
    local command status=0

    for command; do
        shift
        [ "$command" != -- ] || break
        arguments+=("$command")
    done
    for command; do
        arguments+=(-c "$command")
    done
    timeout 60 "$BLKSTACK_IO" "${arguments[@]}" >io.out 2>&1 || status=$?
    cat io.out >>log
    [ "$status" -eq 0 ] && ! grep -q 'verification failed' io.out
}

convert_to() {  # MODEL TARGET
    "$BLKSTACK_IMG" convert -f raw -O "$format" ${options:+-o "$options"} "$1" "$2"
}

# Makes an image that holds what the raw file MODEL does: by whom can.
make_image() {  # MODEL IMAGE
    case $format:$options in
    qcow:* | parallels:*) "$QEMU_IMG" convert -f raw -O "$format" "$1" "$2" ;;
    dmg:*) python3 "$BLKSTACK_SOURCE/iotests/dmg_craft.py" "$1" "$2" z ;;
    *:subformat=cowd | *:subformat=sesparse) "$BLKSTACK_SOURCE/iotests/craft_vmdk.py" "$2" "${options#*=}" "$1" ;;
    *) convert_to "$1" "$2" ;;
    esac
}

try_create() {
    if ! works "$BLKSTACK_IMG" create -q -f "$format" ${options:+-o "$options"} "$disk" 4M; then
        echo no
    elif convert_to ../model.raw - >piped 2>>log && works "$BLKSTACK_IMG" compare -f "$format" -F raw piped ../model.raw; then
        echo yes, also to a pipe
    else
        echo yes
    fi
}

try_read() { says_yes "$BLKSTACK_IMG" compare -f "$format" -F raw "$disk" ../model.raw; }

try_write() {
    local whole=("write -P 7 2M 64k" "read -P 7 2M 64k")

    if does -f "$format" "$disk" -- "write -P 7 3000001 5000" "write -P 8 3000001 5000" "read -P 8 3000001 5000"; then
        echo yes
    elif does -f "$format" "$disk" -- "${whole[@]}" && ! does -f "$format" "$disk" -- "${whole[@]}"; then
        echo whole grains, once
    else
        echo no
    fi
}

try_compressed_write() {
    local commands=("write -c -P 7 2M 64k" "read -P 7 2M 64k")

    if ! does -f "$format" "$disk" -- "${commands[@]}"; then
        echo no
    elif does -f "$format" "$disk" -- "${commands[@]/7/8}"; then
        echo yes
    else
        echo yes, once
    fi
}

try_rewrite_of_compressed() {
    local filter=driver=compress,file.driver=$format,file.file.driver=file,file.file.filename=$disk

    if does --image-opts "$filter" -- "write -P 7 2M 64k" "write -P 8 2M 4k" "read -P 8 2M 4k" "read -P 7 2052k 60k"; then
        echo yes
    else
        echo no
    fi
}

try_snapshots() { says_yes "$BLKSTACK_IMG" snapshot -c one "$disk"; }

# Makes an image above a base of the format BASE-FORMAT, which has nothing where the base begins.
make_child() {  # BASE-FORMAT CHILD
    case $format:$options in
    qcow:*) works "$QEMU_IMG" create -q -f qcow -b "base.$1" -F "$1" "$2" ;;
    *:subformat=cowd | *:subformat=sesparse)
        [ "$1" = vmdk ] || return 1
        make_image zeroes.raw "$2"
        sed -i "s/^parentCID=.*/parentCID=$(grep -a ^CID= base.vmdk | cut -d = -f 2)\nparentFileNameHint=\"base.vmdk\"/" "$2" ;;
    *) works "$BLKSTACK_IMG" create -q -f "$format" -o "${options:+$options,}backing_file=base.$1,backing_fmt=$1" "$2" ;;
    esac
}

# Does an image begin as model.raw does?
shows_base() {  # IMG-DD-ARGUMENTS...
    rm -f first.raw
    works "$BLKSTACK_IMG" dd -O raw bs=4k count=1 of=first.raw "$@" && cmp -s -n 4096 first.raw ../model.raw
}

try_backing() {
    local base seen=

    truncate -s 8M zeroes.raw
    cp ../base.* .
    for base in raw qcow2 vmdk; do
        rm -f child*
        if make_child "$base" "child.$format" && shows_base -f "$format" "if=child.$format"; then
            seen+="$base "
        fi
    done
    case $seen in
    "raw qcow2 vmdk ") echo yes ;;
    "vmdk ") echo vmdk ;;
    "")
        rm -f child*
        make_image zeroes.raw "child.$format"
        if shows_base --image-opts \
            "if=driver=$format,file.driver=file,file.filename=child.$format,backing.driver=raw,backing.file.driver=file,backing.file.filename=base.raw"; then
            echo by option
        else
            echo no
        fi ;;
    *) echo "only $seen" ;;
    esac
}

try_resize() { says_yes "$BLKSTACK_IMG" resize -q -f "$format" "$disk" 16M; }

# Of an image whose file ends too early there is something to find.
try_check() {
    local file size status=0 cut=0

    works "$BLKSTACK_IMG" check -f "$format" "$disk" || status=$?
    for file in disk*; do
        size=$(stat -c %s "$file")
        ((size < 65536)) || truncate -s -$((size < 3145728 ? size / 2 : 1572864)) "$file"        # no descriptor
    done
    works "$BLKSTACK_IMG" check -f "$format" "$disk" || cut=$?
    case $status:$cut in
    63:*) echo no ;;
    0:2) echo yes ;;
    0:0) echo nothing to check ;;
    *) echo "status $status, $cut of a file that ends too early" ;;
    esac
}

# One line for each column, of an image in a directory of its own; each column has a copy of it.
find_out() {    # FORMAT:OPTIONS
    local format=${1%%:*} options=${1#*:} disk=disk.${1%%:*} column

    mkdir image
    ln -s ../model.raw ../base.* .
    (cd image && make_image ../model.raw "$disk")
    for column in "${columns[@]}"; do
        cp -r --sparse=always image work
        cd work
        "try_${column// /_}"
        cat log >>../log 2>/dev/null || true
        cd ..
        rm -r work
    done
}

# ---- the table ----

# Its rows without links, spaces around cells and what follows a semicolon; "|" between cells.
table() {
    sed -n '/^| *format/,/^$/{/^|/p}' "$BLKSTACK_SOURCE/docs/formats.md" |
        sed -e 's/\[\([^]]*\)\]([^)]*)/\1/g' -e 's/;[^|]*//g' -e 's/ *| */|/g' -e 's/^|//' -e 's/|$//'
}

# Data in the first and in the last quarter, none where the columns write.
text_file text.raw 1M
cp text.raw model.raw
truncate -s 7M model.raw
cat text.raw >>model.raw
for base in raw qcow2 vmdk; do
    img convert -f raw -O "$base" model.raw "base.$base"
done
n=0
while IFS='|' read -r row cells; do
    [ -n "${rows[$row]:-}" ] || not_ok "the script knows the row '$row'"
    for variant in ${rows[$row]:-}; do
        n=$((n + 1))
        mkdir "variant$n"
        printf '%s\n' "$row" "$variant" "$cells" >"variant$n/row"
    done
done < <(table | sed 1,2d)
for ((i = 1; i <= n; i++)); do
    # shellcheck disable=SC2310  # a command that fails makes a cell that is not as the table says
    (cd "variant$i" && find_out "$(sed -n 2p row)" >cells 2>>log) &
    ((i % 4)) || wait
done
wait
is "$(table | sed -n 's/^format|//p')" "$(IFS='|' && echo "${columns[*]}")" "columns"
for ((i = 1; i <= n; i++)); do
    label=$(sed -n 2p "variant$i/row")
    got=$(paste -sd '|' "variant$i/cells")
    is "$got" "$(sed -n 3p "variant$i/row")" "as the row '$(sed -n 1p "variant$i/row")' says"
done
label=
num_ok "$n >= 20" "$n kinds of images were tried"
not_formats="blkdebug compress copy-before-write copy-on-read fault file http https log-writes nbd null-co snapshot-access throttle"
for name in $(img --help | sed -n 's/^Supported formats: //p'); do
    [[ " $not_formats " == *" $name "* ]] || like "$(table)" $'\n'"${name}[| ]" "$name has a row"
done

# What is read becomes what is made, by way of a plain image.
for ((i = 1; i <= n; i++)); do
    label=$(sed -n 2p "variant$i/row")
    succeeds "converted from" img convert -f "${label%%:*}" -O raw "variant$i/image/disk.${label%%:*}" from.raw
    truncate -s 8M from.raw
    succeeds "and is the same" cmp from.raw model.raw
done
done_testing
