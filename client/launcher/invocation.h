// Which compiler calls may go to a cache daemon, judged by their words and by
// the files they name. A call goes only where the daemon's answer is known to
// be the compiler's: whatever reads standard input, cannot be run a second
// time, or is known to come back different from a cache is for the compiler.
// Reasons and evidence: docs/zcb.md.
#ifndef ZCBROKER_CLIENT_LAUNCHER_INVOCATION_H_
#define ZCBROKER_CLIENT_LAUNCHER_INVOCATION_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace zcbroker::client {

// What is at a path, links followed where the compiler would.
enum class FileKind { kMissing, kRegular, kDirectory, kOther };

// The file system as far as a judgement needs it; paths are as the compiler
// would take them.
struct FileProbe {
  std::function<FileKind(const std::string& path)> kind;
  // The text of a response file; nothing where it cannot be read or is too
  // long.
  std::function<absl::optional<std::string>(const std::string& path)> text;
};

enum class CompilerFamily { kUnknown, kC, kRust };

// By the last component of a path: gcc, x86_64-linux-gnu-g++-12, clang-14,
// rustc, ...
CompilerFamily FamilyOf(absl::string_view program);

struct Invocation {
  CompilerFamily family = CompilerFamily::kUnknown;
  // Why the compiler itself is to be run, for people; empty: a daemon may.
  std::string why_not;
  // It compiles a source, so a cache could have helped. False for links,
  // archives, --version and so on.
  bool compiles = false;

  // Valid where why_not is empty.
  std::string source;
  // What a successful call leaves behind: the object, or nothing where rustc
  // names it itself.
  std::string output;
  // The dependency file it writes, if any.
  std::string depfile;
  // -g in some form: the working directory's spelling is in the object.
  bool debug_info = false;
};

// `args` are the words after the compiler. Thread-safe.
Invocation Judge(absl::string_view program,
                 const std::vector<absl::string_view>& args,
                 const FileProbe& files);

// The first word of a source's text by which the result depends on more than
// the files that a dependency file names: .incbin, __TIMESTAMP__, __DATE__,
// __TIME__, __has_include, __has_embed, #embed; empty where there is none.
// zccache 1.11.22 keeps such objects and brings them back (seen). Headers and
// macros may hide it.
absl::string_view ReadsWhatNoCacheSees(absl::string_view source);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_LAUNCHER_INVOCATION_H_
