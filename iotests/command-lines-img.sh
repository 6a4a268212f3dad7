#!/bin/bash
# SPDX-License-Identifier: MIT
# What users type, and mistype, at blkstack-img: exit status, streams and text are those of the peer.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io
any_backend

python_test <<'END'
import os
import subprocess

from command_lines import compare

TABLE = r"""
# ---- the program itself ----
?
? --help
? -h
? --version
? -V
? -h info
? --help bogus
= bogus
= bogus --help
= --bogus
= -x
? -T help info raw.raw
= -T
= --trace
-T '' info raw.raw
? -T bdrv_open_common info raw.raw
? --trace enable=bdrv_open_common info raw.raw
? --trace=bdrv_open_common info raw.raw
? --tr bdrv_open_common info raw.raw
? -Tbdrv_open_common info raw.raw
-- info raw.raw
? --vers
? --he
!nothing --
? info --help
? info -h
? create --help
? create -h
? snapshot -h
? convert --help raw.raw
? amend -h
? bench -h
? bitmap -h
? check -h
? commit -h
? compare -h
? dd -h
? dd --help
? map -h
? measure -h
? rebase -h
!resize-help resize -h
# ---- info ----
= info
info raw.raw
info a.qcow2
info top.qcow2
info -f raw a.qcow2
= info -f qcow2 raw.raw
= info -f bogus raw.raw
info -fraw raw.raw
info --format raw raw.raw
info --format=raw raw.raw
info --form=raw raw.raw
= info --f=raw raw.raw
= info missing
info ''
info .
= info raw.raw a.qcow2
= info --bogus raw.raw
= info -Z raw.raw
= info -f
= info --output
info --output=json a.qcow2
info --output=human a.qcow2
= info --output=bogus a.qcow2
info --out=json raw.raw
info --backing-chain top.qcow2
info --backing-chain --output=json top.qcow2
info --back top.qcow2
info -U a.qcow2
info --force-share a.qcow2
info -- a.qcow2
info a.qcow2 --output=json
= info a.qcow2 -- extra
info --image-opts driver=qcow2,file.filename=a.qcow2
info --image-opts file.filename=a.qcow2
= info --image-opts driver=qcow2,file.filename=missing
= info --image-opts driver=bogus,file.filename=a.qcow2
info --image-opts driver=qcow2,bogus=1,file.filename=a.qcow2
info --image-opts a.qcow2
= info --image-opts -f qcow2 driver=qcow2,file.filename=a.qcow2
= info --image-opts -U driver=qcow2,file.filename=a.qcow2,force-share=off
info json:{
info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}'
info 'json:{"driver":"qcow2"}'
info nbd:unix:/nonexistent
? info --object help
? info --object secret,help
info --object secret,id=s,data=x a.qcow2
info --object bogus,id=s a.qcow2
info --object secret,id=s a.qcow2
info --object secret,data=x a.qcow2
info --object '' a.qcow2
info --object secret,id=s,data=x --object secret,id=s,data=x a.qcow2
= info -q a.qcow2
= info -p a.qcow2
sh @ info a.qcow2 >&-
sh @ info missing 2>&-
sh { @ map --output=json a.qcow2; echo $? >status; } | true; cat status
sh { @ info a.qcow2; echo $? >status; } | true; cat status
sh @ info a.qcow2 <&-
# ---- create ----
= create
= create new.raw
create new.raw 1M
= create new.raw 1M
= create -f raw new.raw 1M extra
= create -f bogus new.raw 1M
create -f qcow2 new.qcow2 1M
create -q -f qcow2 new.qcow2 1M
= create -f qcow2 new.qcow2
= create -f qcow2 new.qcow2 bogus
= create -f qcow2 new.qcow2 ''
= create -f qcow2 new.qcow2 -1
= create -f qcow2 new.qcow2 -- -1
create -f qcow2 -- new.qcow2 1M
create -f qcow2 new.qcow2 0
create -f raw new.raw 1k
create -f raw new.raw 1K
create -f raw new.raw 1b
create -f raw new.raw 1B
create -f raw new.raw 1.5G
= create -f raw new.raw 1.5
create -f raw new.raw 0.5k
create -f raw new.raw 1.1k
create -f raw new.raw 0x10
!hex create -f raw new.raw 0x10k
= create -f raw new.raw 0x
= create -f raw new.raw 1e3
!too-large create -f raw new.raw 1E
!too-large create -f raw new.raw 1e
= create -f raw new.raw 1Z
= create -f raw new.raw 1MB
= create -f raw new.raw 1MiB
create -f raw new.raw ' 1M'
= create -f raw new.raw '1M '
create -f raw new.raw +1M
create -f raw new.raw 010
= create -f raw new.raw 8E
!too-large create -f raw new.raw 7E
!too-large create -f raw new.raw 9223372036854775807
= create -f raw new.raw 9223372036854775808
= create -f raw new.raw 18446744073709551616
= create -f raw new.raw inf
= create -f raw new.raw nan
= create -f raw new.raw .5M
create -f raw new.raw 1.M
create -f raw new.raw 1.
create -f raw new.raw 1.b
= create -f raw new.raw 99999999999999999999
= create -f raw new.raw 99999999999999999999.5
= create -f raw new.raw 0.1
= create -f raw new.raw 1,5M
create -f raw new.raw 1t
create -f qcow2 new.qcow2 1P
create -f qcow2 -o cluster_size=4k new.qcow2 1M
= create -f qcow2 -o cluster_size=3k new.qcow2 1M
create -f qcow2 -o cluster_size=bogus new.qcow2 1M
create -f qcow2 -o bogus=1 new.qcow2 1M
create -f qcow2 -o cluster_size new.qcow2 1M
= create -f qcow2 -o '' new.qcow2 1M
= create -f qcow2 -o , new.qcow2 1M
create -f qcow2 -o =1 new.qcow2 1M
!value create -f qcow2 -o compat=bogus new.qcow2 1M
create -f qcow2 -o compat=0.10,lazy_refcounts=on new.qcow2 1M
create -f qcow2 -o lazy_refcounts=maybe new.qcow2 1M
create -f qcow2 -o lazy_refcounts new.qcow2 1M
create -f qcow2 -o nolazy_refcounts new.qcow2 1M
!value create -f qcow2 -o preallocation=bogus new.qcow2 1M
create -f qcow2 -o size=2M new.qcow2
= create -f qcow2 -o size=2M new.qcow2 1M
create -f qcow2 -o size=1M -o size=2M new.qcow2
!value create -f qcow2 -o compression_type=bogus new.qcow2 1M
= create -f qcow2 -o refcount_bits=3 new.qcow2 1M
= create -f qcow2 -o cluster_size=4k, new.qcow2 1M
= create -f qcow2 -o ,cluster_size=4k new.qcow2 1M
create -f raw -o nonocow new.raw 1M
create -f qcow2 -o nobogus new.qcow2 1M
create -f qcow2 -o cluster_size=4k,cluster_size=8k new.qcow2 1M
? create -f qcow2 -o help
? create -f qcow2 -o help new.qcow2
? create -f qcow2 -o '?' new.qcow2 1M
? create -f qcow2 -o cluster_size=4k,help new.qcow2 1M
? create -f raw -o help
= create -f bogus -o help
create -f qcow2 -b base.qcow2 -F qcow2 new.qcow2
create -f qcow2 -b base.qcow2 new.qcow2
= create -f qcow2 -b missing -F qcow2 new.qcow2
= create -f qcow2 -b missing -F qcow2 new.qcow2 1M
create -f qcow2 -u -b missing -F qcow2 new.qcow2 1M
= create -f qcow2 -u -b missing -F qcow2 new.qcow2
= create -f qcow2 -b base.qcow2 -F bogus new.qcow2
create -f qcow2 -b base.qcow2 -F qcow2 -o backing_file=x new.qcow2
= create -f qcow2 -F qcow2 new.qcow2 1M
= create -f qcow2 -b '' -F qcow2 new.qcow2 1M
= create -f qcow2 -b new.qcow2 -F qcow2 new.qcow2 1M
= create -f raw -b base.qcow2 -F qcow2 new.raw
create -f qcow2 /nonexistent/new.qcow2 1M
create -f qcow2 . 1M
create -f qcow2 '' 1M
= create -f qcow2 new.qcow2 1M --bogus
= create --format=qcow2 new.qcow2 1M
create --object secret,id=s,data=x -f qcow2 new.qcow2 1M
= create -6 new.qcow2 1M
= create -e new.qcow2 1M
= create -c new.qcow2 1M
create -f qcow2 -o encryption=on new.qcow2 1M
create -f qcow2 -o encrypt.format=luks new.qcow2 1M
create -f raw -o preallocation=full /dev/full 1M
# ---- check ----
= check
check a.qcow2
check -q a.qcow2
check -f qcow2 a.qcow2
= check -f raw raw.raw
= check raw.raw
= check missing
= check -f bogus a.qcow2
= check a.qcow2 raw.raw
= check --bogus a.qcow2
check --output=json a.qcow2
= check --output=bogus a.qcow2
!snapshot check -r leaks a.qcow2
!snapshot check -r all a.qcow2
= check -r bogus a.qcow2
= check -r
!snapshot check --repair=all a.qcow2
= check leaked.qcow2
= check -q leaked.qcow2
= check --output=json leaked.qcow2
check -r leaks leaked.qcow2
check -r leaks -q leaked.qcow2
check -T none a.qcow2
= check -T bogus a.qcow2
check -U a.qcow2
check -r all base.qcow2
check --repair=leaks base.qcow2
= check -U -r all a.qcow2
check --image-opts driver=qcow2,file.filename=a.qcow2
= check --image-opts -f qcow2 driver=qcow2,file.filename=a.qcow2
check --object bogus,id=x a.qcow2
# ---- commit ----
= commit
commit top.qcow2
commit -q top.qcow2
? commit -p top.qcow2
commit -d top.qcow2
commit -b base.qcow2 top.qcow2
= commit -b missing top.qcow2
= commit base.qcow2
= commit -f raw raw.raw
= commit missing
= commit -f bogus top.qcow2
= commit -t bogus top.qcow2
commit -t none top.qcow2
= commit -r bogus top.qcow2
commit -r 10M top.qcow2
= commit top.qcow2 extra
= commit --bogus top.qcow2
= commit -f qcow2 --image-opts top.qcow2
# ---- compare ----
= compare
= compare raw.raw
compare raw.raw raw.raw
compare raw.raw same.raw
compare raw.raw a.qcow2
compare raw.raw long.raw
compare -s raw.raw long.raw
compare -s raw.raw same.raw
compare -q raw.raw a.qcow2
= compare -q raw.raw missing
= compare raw.raw missing
= compare missing raw.raw
compare -f raw -F qcow2 raw.raw a.qcow2
= compare -f bogus raw.raw same.raw
= compare -F bogus raw.raw same.raw
= compare raw.raw same.raw extra
= compare --bogus raw.raw same.raw
= compare -T bogus raw.raw same.raw
? compare -p raw.raw same.raw
compare -U raw.raw same.raw
compare --image-opts driver=raw,file.filename=raw.raw driver=raw,file.filename=same.raw
= compare --image-opts -f raw raw.raw same.raw
compare --object bogus,id=x raw.raw same.raw
# ---- convert ----
= convert
= convert raw.raw
convert raw.raw out.raw
convert -O qcow2 raw.raw out.qcow2
= convert -O bogus raw.raw out
= convert -f bogus raw.raw out
= convert -O qcow2 missing out.qcow2
= convert missing missing2 out.raw
convert -O raw raw.raw same.raw out.raw
= convert -c -O raw raw.raw out.raw
convert -c -O qcow2 raw.raw out.qcow2
? convert -p raw.raw out.raw
convert -p -q raw.raw out.raw
convert -O qcow2 -o bogus=1 raw.raw out.qcow2
? convert -O qcow2 -o help
? convert -O qcow2 -o help raw.raw out.qcow2
convert -O qcow2 -o size=1 raw.raw out.qcow2
= convert -n raw.raw out.raw
convert -n raw.raw same.raw
= convert -n raw.raw short.raw
= convert -n -o size=1M raw.raw same.raw
= convert -S bogus raw.raw out.raw
convert -S 4k raw.raw out.raw
= convert -S 100 raw.raw out.raw
convert -S 0 raw.raw out.raw
= convert -S 4G raw.raw out.raw
= convert -m 0 raw.raw out.raw
= convert -m 17 raw.raw out.raw
= convert -m x raw.raw out.raw
convert -m 1 -W raw.raw out.raw
convert -W raw.raw out.raw
convert -C raw.raw out.raw
= convert -C -S 4k raw.raw out.raw
!cache convert -t bogus raw.raw out.raw
= convert -T bogus raw.raw out.raw
convert -t none raw.raw out.raw
convert -T unsafe raw.raw out.raw
= convert -r bogus raw.raw out.raw
convert -r 100M raw.raw out.raw
convert -r 0 raw.raw out.raw
= convert -r -1 raw.raw out.raw
convert -l s1 a.qcow2 out.raw
convert -l missing a.qcow2 out.raw
convert -l snapshot.name=s1 a.qcow2 out.raw
convert -l snapshot.bogus=s1 a.qcow2 out.raw
convert -l s1 raw.raw out.raw
= convert -l s1 a.qcow2 raw.raw out.raw
= convert -B base.qcow2 -O qcow2 top.qcow2 out.qcow2
convert -B base.qcow2 -F qcow2 -O qcow2 top.qcow2 out.qcow2
= convert -B base.qcow2 -F qcow2 -O raw top.qcow2 out.raw
convert -B missing -F qcow2 -O qcow2 top.qcow2 out.qcow2
= convert -B base.qcow2 -F qcow2 -O qcow2 top.qcow2 top.qcow2 out.qcow2
= convert -F qcow2 -O qcow2 raw.raw out.qcow2
= convert --bitmaps a.qcow2 out.raw
convert --bitmaps -O qcow2 a.qcow2 out.qcow2
= convert --bitmaps -O qcow2 raw.raw out.qcow2
= convert --skip-broken-bitmaps -O qcow2 a.qcow2 out.qcow2
convert --salvage raw.raw out.raw
= convert --salvage -C raw.raw out.raw
= convert --target-is-zero raw.raw out.raw
convert --target-is-zero -n raw.raw same.raw
convert --target-image-opts -n raw.raw driver=raw,file.filename=same.raw
= convert --target-image-opts raw.raw driver=raw,file.filename=same.raw
= convert --target-image-opts -O raw -n raw.raw driver=raw,file.filename=same.raw
convert --image-opts driver=raw,file.filename=raw.raw out.raw
= convert --image-opts -f raw raw.raw out.raw
= convert -D x raw.raw out.raw
= convert --bogus raw.raw out.raw
convert -U raw.raw out.raw
convert raw.raw /nonexistent/out
= convert raw.raw raw.raw
= convert -O qcow2 a.qcow2 a.qcow2
= convert -n a.qcow2 a.qcow2
= convert raw.raw /dev/full
convert -- raw.raw out.raw
convert raw.raw out.raw -O qcow2
convert --object bogus,id=x raw.raw out.raw
= convert -e raw.raw out.raw
= convert -6 raw.raw out.raw
# ---- dd ----
= dd
= dd if=raw.raw
= dd of=out.raw
dd if=raw.raw of=out.raw
dd if=raw.raw of=out.raw bs=64k count=2
dd if=raw.raw of=out.raw bs=64k skip=2
= dd if=raw.raw of=out.raw bs=0
= dd if=raw.raw of=out.raw bs=x
= dd if=raw.raw of=out.raw count=x
= dd if=raw.raw of=out.raw skip=-1
= dd if=raw.raw of=out.raw bs=3000M
= dd if=raw.raw of=out.raw skip=9999
= dd if=missing of=out.raw
dd if=raw.raw of=/nonexistent/x
= dd if=raw.raw of=out.raw bogus=1
= dd if=raw.raw of=out.raw bogus
= dd if=raw.raw of=out.raw seek=1
= dd -f bogus if=raw.raw of=out.raw
dd -O bogus if=raw.raw of=out.raw
dd -f raw -O qcow2 if=raw.raw of=out.qcow2
dd -U if=raw.raw of=out.raw
= dd --bogus if=raw.raw of=out.raw
dd --image-opts if=driver=raw,file.filename=raw.raw of=out.raw
= dd --image-opts -f raw if=raw.raw of=out.raw
dd -- if=raw.raw of=out.raw
# ---- map ----
= map
map raw.raw
map a.qcow2
map --output=json a.qcow2
= map --output=bogus a.qcow2
= map -f bogus a.qcow2
map -f raw raw.raw
= map missing
= map a.qcow2 raw.raw
map -s 64k a.qcow2
map --start-offset=64k --output=json a.qcow2
map --start-offset=64k --max-length=64k --output=json a.qcow2
map -l 64k --output=json a.qcow2
= map -s x a.qcow2
= map -l x a.qcow2
= map -s -1 a.qcow2
map -s 9M --output=json a.qcow2
map -l 0 --output=json a.qcow2
= map --bogus a.qcow2
map --image-opts driver=qcow2,file.filename=a.qcow2
= map --image-opts -f qcow2 a.qcow2
map -U a.qcow2
# ---- measure ----
= measure
measure --size 1G
measure --size 1G -O qcow2
measure --size 1G -O qcow2 --output=json
= measure --size 1G a.qcow2
= measure --size x
= measure --size -1
measure --size 0
= measure --size 9E
measure -O qcow2 raw.raw
= measure -O bogus raw.raw
= measure -f bogus raw.raw
= measure missing
= measure raw.raw extra
measure -O qcow2 -o cluster_size=4k --size 1M
= measure -O qcow2 -o cluster_size=3k --size 1M
measure -O qcow2 -o bogus=1 --size 1M
? measure -O qcow2 -o help
= measure -O vpc --size 1M
= measure -f qcow2 --size 1M
measure -U --size 1M
= measure --image-opts --size 1M
measure -l s1 a.qcow2
measure -l bogus a.qcow2
!measure measure --bogus
= measure --output=bogus --size 1M
measure --image-opts driver=qcow2,file.filename=a.qcow2
# ---- rebase ----
= rebase
= rebase top.qcow2
rebase -b base.qcow2 -F qcow2 top.qcow2
rebase -u -b base.qcow2 -F qcow2 top.qcow2
rebase -u -b missing -F qcow2 top.qcow2
rebase -b missing -F qcow2 top.qcow2
rebase -b base.qcow2 top.qcow2
= rebase -b base.qcow2 -F bogus top.qcow2
rebase -b '' top.qcow2
rebase -u -b '' top.qcow2
rebase -b base.qcow2 -F qcow2 raw.raw
= rebase -b base.qcow2 -F qcow2 missing
= rebase -f bogus -b base.qcow2 -F qcow2 top.qcow2
= rebase -t bogus -b base.qcow2 -F qcow2 top.qcow2
= rebase -T bogus -b base.qcow2 -F qcow2 top.qcow2
? rebase -p -b base.qcow2 -F qcow2 top.qcow2
rebase -q -b base.qcow2 -F qcow2 top.qcow2
= rebase -u -f qcow2 --image-opts -b base.qcow2 -F qcow2 top.qcow2
= rebase --bogus -b base.qcow2 top.qcow2
= rebase -b base.qcow2 -F qcow2 top.qcow2 extra
# ---- resize ----
= resize
= resize raw.raw
resize raw.raw 2M
resize -f raw raw.raw 2M
resize -f raw raw.raw +1M
resize -f raw raw.raw -512k
resize -f raw --shrink raw.raw -512k
= resize -f raw --shrink raw.raw -512M
resize -f raw raw.raw +0
resize -f raw raw.raw 1M
= resize -f raw raw.raw x
= resize -f raw raw.raw +x
= resize -f raw raw.raw ''
= resize -f raw raw.raw +
resize -f raw raw.raw 1.5M
resize -f raw raw.raw +9E
resize -q -f raw raw.raw 2M
resize a.qcow2 2M
resize --shrink a.qcow2 512k
resize base.qcow2 2M
= resize -f bogus raw.raw 2M
= resize -f raw missing 2M
= resize -f raw raw.raw 2M extra
resize -f raw --preallocation=full raw.raw 2M
= resize -f raw --preallocation=bogus raw.raw 2M
= resize -f raw --preallocation=full --shrink raw.raw 512k
= resize --bogus raw.raw 2M
resize --image-opts driver=raw,file.filename=raw.raw 2M
= resize --image-opts -f raw raw.raw 2M
= resize 2M raw.raw
# ---- snapshot ----
= snapshot
snapshot a.qcow2
snapshot -l a.qcow2
snapshot -l raw.raw
= snapshot -l missing
snapshot -c s2 a.qcow2
snapshot -c s1 a.qcow2
snapshot -c s2 raw.raw
snapshot -c '' a.qcow2
snapshot -a s1 a.qcow2
snapshot -a bogus a.qcow2
snapshot -d s1 a.qcow2
= snapshot -d bogus a.qcow2
= snapshot -l -c s2 a.qcow2
= snapshot -c s2 -d s1 a.qcow2
= snapshot -c
snapshot -q -c s2 a.qcow2
snapshot -U -l a.qcow2
= snapshot -U -c s2 a.qcow2
= snapshot -l a.qcow2 extra
= snapshot --bogus a.qcow2
snapshot --image-opts -l driver=qcow2,file.filename=a.qcow2
= snapshot -f qcow2 -l a.qcow2
# ---- amend ----
= amend
= amend a.qcow2
amend -o compat=1.1 a.qcow2
amend -o lazy_refcounts=on a.qcow2
amend -o bogus=1 a.qcow2
= amend -o cluster_size=4k a.qcow2
amend -o compat=bogus a.qcow2
= amend -o preallocation=full a.qcow2
? amend -o help a.qcow2
? amend -f qcow2 -o help
= amend -f raw -o help
amend -o lazy_refcounts=on raw.raw
= amend -f bogus -o lazy_refcounts=on a.qcow2
= amend -o lazy_refcounts=on missing
amend -p -o lazy_refcounts=on a.qcow2
amend -q -o lazy_refcounts=on a.qcow2
= amend -t bogus -o lazy_refcounts=on a.qcow2
amend -t none -o lazy_refcounts=on a.qcow2
amend --force -o lazy_refcounts=on a.qcow2
= amend --bogus -o lazy_refcounts=on a.qcow2
= amend -o lazy_refcounts=on a.qcow2 extra
amend --image-opts -o lazy_refcounts=on driver=qcow2,file.filename=a.qcow2
# ---- bench ----
= bench
? bench -c 10 raw.raw
? bench -c 10 -w -f raw raw.raw
= bench -c x raw.raw
bench -c 0 raw.raw
= bench -c -1 raw.raw
= bench -d x raw.raw
= bench -s x raw.raw
bench -s 0 raw.raw
= bench -S x raw.raw
= bench -o x raw.raw
= bench -o 2M -c 1 raw.raw
= bench -i bogus raw.raw
= bench -t bogus raw.raw
= bench -f bogus raw.raw
= bench missing
= bench raw.raw extra
= bench --bogus raw.raw
= bench --pattern=300 -w raw.raw
= bench --pattern=x -w raw.raw
= bench --flush-interval=x -w raw.raw
= bench --flush-interval=10 raw.raw
= bench --flush-interval=5 -d 10 -w raw.raw
bench --no-drain raw.raw
bench -q -c 10 raw.raw
bench -U -c 10 -q raw.raw
= bench -U -w -c 10 -q raw.raw
bench --image-opts -c 10 -q driver=raw,file.filename=raw.raw
# ---- bitmap ----
= bitmap
= bitmap a.qcow2
bitmap --add a.qcow2 b1
= bitmap --add a.qcow2
= bitmap --add a.qcow2 b0
bitmap --add -g 4k a.qcow2 b1
bitmap --add -g 3k a.qcow2 b1
= bitmap --add -g x a.qcow2 b1
= bitmap -g 4k --remove a.qcow2 b0
bitmap --remove a.qcow2 b0
= bitmap --remove a.qcow2 bogus
bitmap --clear a.qcow2 b0
bitmap --enable a.qcow2 b0
bitmap --disable a.qcow2 b0
= bitmap --merge b0 --add a.qcow2 b1
bitmap --add --merge b0 a.qcow2 b1
= bitmap --merge bogus a.qcow2 b0
bitmap --merge b0 -b a.qcow2 -F qcow2 a.qcow2 b0
= bitmap --add -b a.qcow2 a.qcow2 b1
= bitmap --merge b0 -b missing -F qcow2 a.qcow2 b0
= bitmap --merge b0 -F qcow2 a.qcow2 b0
bitmap --add raw.raw b1
= bitmap --add missing b1
= bitmap --add -f bogus a.qcow2 b1
= bitmap --add -f qcow2 --image-opts a.qcow2 b1
= bitmap --add a.qcow2 b1 extra
= bitmap --bogus a.qcow2 b0
= bitmap a.qcow2 b0
= bitmap --add a.qcow2 ''
"""

DIFFERENCES = {
    "nothing": ("a missing command is an error", 1, r"Not enough arguments"),
    "resize-help": ("the last word may be an option", 0, r"^usage: "),
    "hex": ("the peer itself warns that it will not take that any more", 1, r"Invalid image size"),
    "too-large": ("no file is left behind", 1, r"File too large|must be from 0 to"),
    "value": ("a value is checked before it is said what is made", 1, r"must be one of"),
    "snapshot": ("the peer takes the snapshots of an image with bitmaps for leaks, and drops them", 0, r"No errors"),
    "cache": ("options are checked before the target is made", 1, r"Invalid cache option"),
    "measure": ("an unknown option is an error", 1, r"unrecognized option"),
}


def set_up(directory):
    def tool(*words):
        subprocess.run(words, cwd=directory, check=True, timeout=60, stdout=subprocess.DEVNULL)

    img, io = os.environ["QEMU_IMG"], os.environ["QEMU_IO"]
    tool(img, "create", "-f", "raw", "raw.raw", "1M")
    tool(io, "-f", "raw", "-c", "write -P 1 64k 64k", "raw.raw")
    tool("cp", "raw.raw", "same.raw")
    tool("cp", "raw.raw", "long.raw")
    tool("truncate", "-s", "2M", "long.raw")
    tool("truncate", "-s", "64k", "short.raw")
    tool(img, "create", "-f", "qcow2", "a.qcow2", "1M")
    tool(io, "-c", "write -P 1 64k 64k", "-c", "write -z 256k 64k", "a.qcow2")
    tool(img, "snapshot", "-c", "s1", "a.qcow2")
    tool(img, "bitmap", "--add", "a.qcow2", "b0")
    tool(img, "create", "-f", "qcow2", "base.qcow2", "1M")
    tool(img, "create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    tool(io, "-c", "write -P 2 128k 64k", "top.qcow2")
    tool("cp", "base.qcow2", "leaked.qcow2")
    with open(os.path.join(directory, "leaked.qcow2"), "r+b") as image:     # one more cluster in the refcount block
        image.seek(0x20000 + 2 * 4)
        image.write(b"\0\1")
        image.truncate(5 << 16)


compare("blkstack-img", "qemu-img", TABLE, DIFFERENCES, set_up)
END
