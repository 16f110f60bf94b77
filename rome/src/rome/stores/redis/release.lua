#!lua flags=allow-oom
-- A transaction that held something has ended without a commit.
let_go(unpack(cmsgpack.unpack(ARGV[1])))
