# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Serves queue 0 by Debian's ruby-nfqueue until SIGTERM: accepts, drops every third, rewrites every fifth, and prints
# what it sees. Run by tools/tests/accel/debian.rs. That library sends every packet's bytes along with its verdict.
require "nfqueue"

$stdout.sync = true
trap("TERM") { exit! 0 }
queue = Netfilter::Queue.new(0)
warn "ready: ruby"
queue.process do |packet|
  payload = packet.data.byteslice(28..)
  number = payload.unpack1("@4N")
  last = number == 0xffffffff
  puts "#{packet.id} #{packet.protocol} #{packet.data.bytesize} #{packet.indev} #{last}"
  if !last && (number % 3).zero?
    Netfilter::Packet::DROP
  else
    if !last && (number % 5).zero?
      changed = packet.data.dup
      changed.setbyte(28, 255)
      26.upto(27) { |at| changed.setbyte(at, 0) } # no checksum
      packet.data = changed
    end
    Netfilter::Packet::ACCEPT
  end
end
