#!/usr/bin/perl
# Run by moed.service in the daemon's place, before it: tries what the daemon must not be able to
# do, and prints a line `claim=1` where that, or what it must be able to do, is as it should be.
use strict;
use warnings;
use Socket;

my $is_arm = `uname -m` =~ /aarch64/;
my %number = $is_arm
  ? (ptrace => 117, unshare => 97, mount => 40, mmap => 222, sethostname => 161, reboot => 142)
  : (ptrace => 101, unshare => 272, mount => 165, mmap => 9, sethostname => 170, reboot => 169);

sub claim { my ($name, $holds) = @_; print "$name=", ($holds ? 1 : 0), "\n"; }
sub can_write { my ($path) = @_; my $file; return 0 unless open $file, '>', $path; close $file; unlink $path; return 1; }
sub can_read { my ($path) = @_; my $file; return 0 unless open $file, '<', $path; my $text = <$file>; return defined $text; }

claim('runs_as_a_dynamic_user', $< >= 61184 && $< <= 65519);
claim('writes_its_state', can_write('/var/lib/moed/probe'));
for my $path ('/etc/probe', '/usr/bin/probe', '/var/probe', '/run/probe', '/boot/probe', '/root/probe',
  '/etc/moed/probe', '/sys/kernel/probe') {
  my $name = $path =~ s{/}{_}gr;
  claim("cannot_write$name", !can_write($path));
}
claim('cannot_read_the_password_file', !can_read('/etc/moed/mqtt.password'));
claim('reads_its_credential', can_read("$ENV{CREDENTIALS_DIRECTORY}/mqtt.password"));
claim('cannot_read_shadow', !can_read('/etc/shadow'));
claim('sees_no_files_of_others_in_tmp', !-e '/tmp/of-somebody-else');
claim('reads_cpuinfo', can_read('/proc/cpuinfo'));
claim('cannot_ptrace', syscall($number{ptrace}, 0, 0, 0, 0) == -1);
claim('cannot_open_a_raw_socket', !socket(my $raw, AF_INET, SOCK_RAW, 1));
claim('cannot_open_a_packet_socket', !socket(my $packet, 17, SOCK_RAW, 0));
claim('cannot_open_a_netlink_socket', !socket(my $netlink, 16, SOCK_RAW, 0));
claim('cannot_make_a_namespace', syscall($number{unshare}, 0x10000000) == -1);
claim('cannot_mount', syscall($number{mount}, my $none = 'none', my $at = '/tmp', my $type = 'tmpfs', 0, 0) == -1);
claim('cannot_have_memory_that_it_writes_and_executes', syscall($number{mmap}, 0, 4096, 7, 0x22, -1, 0) == -1);
claim('cannot_change_the_hostname', syscall($number{sethostname}, my $host = 'x', 1) == -1);
claim('cannot_become_root', do { $> = 0; $> != 0 });
opendir my $proc, '/proc' or die;
my @others = grep { /^\d+$/ && (stat "/proc/$_")[4] != $< } readdir $proc;
claim('sees_no_process_of_others', !@others);
claim('cannot_signal_others', !kill 0, 1);
claim('has_no_devices', !-e '/dev/mem' && !-e '/dev/kmsg' && !-e '/dev/fuse' && -e '/dev/null');
