#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# quickstart-map.pl LENGTH <map.json: draws the map of an image of LENGTH bytes as text, one character per equal share.
use strict;
use warnings;

my ($length, $columns, $rows) = ($ARGV[0], 64, 16);
my $share = $length / ($columns * $rows);
my @bytes = map { {} } 1 .. $columns * $rows;

# One object per extent, as `map --output=json` prints them: "start", "length", "zero", "data", and "offset" only where
# the bytes lie plainly in the file.
local $/ = '}';
while (my $extent = <STDIN>) {
    my ($start) = $extent =~ /"start": *(\d+)/ or next;
    my ($left) = $extent =~ /"length": *(\d+)/;
    my $kind = $extent =~ /"data": *true/ ? ($extent =~ /"offset": *\d/ ? 'plain' : 'compressed') : 'zero';
    while ($left > 0) {
        my $cell = int($start / $share);
        my $part = ($cell + 1) * $share - $start;
        $part = $left if $part > $left || $part <= 0;
        $bytes[$cell < @bytes ? $cell : -1]{$kind} += $part;
        $start += $part;
        $left -= $part;
    }
}

my %sign = (compressed => 'c', plain => '#', zero => '.');
print "  Each character stands for ", int($share / 1024), " KiB; what most of it is: c compressed, # plain, . zeroes\n";
for my $row (0 .. $rows - 1) {
    print '  |';
    for my $cell (@bytes[$row * $columns .. ($row + 1) * $columns - 1]) {
        my ($most) = sort { $cell->{$b} <=> $cell->{$a} || $a cmp $b } keys %$cell;
        print $sign{$most // 'zero'};
    }
    print "|\n";
}
