#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# quickstart-edits.pl MODEL PIECES-DIRECTORY SMALL LARGE CLUSTER SEED
#
# Picks SMALL places of 4 KiB and LARGE whole clusters of the raw image MODEL, puts data from other places of the image
# there, and prints the same writes as commands for blkstack-io. The pieces that those commands name stay in the
# directory.
use strict;
use warnings;

my ($model, $dir, $small, $large, $cluster, $seed) = @ARGV;
my $size = -s $model;
my %pieces = (4096 => [], $cluster => []);

srand($seed);
open(my $file, '+<:raw', $model) or die "$model: $!\n";

sub read_at {
    my ($offset, $bytes) = @_;
    seek($file, $offset, 0) or die "$model: $!\n";
    read($file, my $data, $bytes) == $bytes or die "$model: short read\n";
    return $data;
}

# Source data: pieces that are not only zeroes, so that the writes resemble those of a file system in use.
for my $bytes (sort { $a <=> $b } keys %pieces) {
    for (my $try = 0; $try < 20000 && @{$pieces{$bytes}} < 48; $try++) {
        my $data = read_at(int(rand($size / $bytes)) * $bytes, $bytes);
        next if $data !~ /[^\0]/;
        my $name = "$dir/" . $bytes . '.' . scalar(@{$pieces{$bytes}});
        open(my $out, '>:raw', $name) or die "$name: $!\n";
        print $out $data;
        close($out) or die "$name: $!\n";
        push @{$pieces{$bytes}}, [$name, $data];
    }
    @{$pieces{$bytes}} or die "$model holds only zeroes\n";
}

for my $bytes ((4096) x $small, ($cluster) x $large) {
    my ($name, $data) = @{$pieces{$bytes}[int(rand(@{$pieces{$bytes}}))]};
    my $offset = int(rand($size / $bytes)) * $bytes;
    seek($file, $offset, 0) or die "$model: $!\n";
    print $file $data or die "$model: $!\n";
    print "write -q -s $name $offset $bytes\n";
}
print "flush\nquit\n";
close($file) or die "$model: $!\n";
