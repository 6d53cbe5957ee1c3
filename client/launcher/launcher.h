// zcb: a compiler launcher that asks a running cache daemon first, and runs
// the compiler itself whenever that could make a difference. Three rules keep
// it safe (docs/zcb.md): a long compile is not a wedge; never two compilers
// for one output; what cannot be replayed is not sent.
#ifndef ZCBROKER_CLIENT_LAUNCHER_LAUNCHER_H_
#define ZCBROKER_CLIENT_LAUNCHER_LAUNCHER_H_

namespace zcbroker::client {

// Compiles as `words` say: a compiler, its arguments, and a null pointer, as
// execv(3) takes them. Returns the exit status of a compile that a daemon did;
// where the compiler itself is run, this process becomes it, and 127 comes
// back if that cannot be done (126 where it is no program).
int Launch(char** words);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_LAUNCHER_LAUNCHER_H_
