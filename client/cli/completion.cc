#include "client/cli/completion.h"

#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace zcbroker::cli {
namespace {

struct Word {
  std::string text;
  std::string description;  // one line
  bool takes_value = false;
};

// What may follow a verb: its own verbs, then its options.
struct Place {
  std::string path;  // "" or the verbs so far, each after a blank
  std::vector<Word> verbs;
  std::vector<Word> options;
};

// The first line, without what ends a quoted text in a shell.
std::string Description(const std::string& text) {
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  return absl::StrReplaceAll(lines.front(), {{"'", ""}, {"\\", ""}});
}

std::vector<Place> PlacesOf(const CLI::App& app, const std::string& path) {
  Place place{path, {}, {}};
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      place.options.push_back({absl::StrCat("--", name),
                               Description(option->get_description()),
                               option->get_expected_min() > 0});
    }
  }
  std::vector<Place> below;
  for (const CLI::App* verb : app.get_subcommands(
           [](const CLI::App* verb) { return !verb->get_group().empty(); })) {
    place.verbs.push_back(
        {verb->get_name(), Description(verb->get_description())});
    for (Place& deeper :
         PlacesOf(*verb, absl::StrCat(path, " ", verb->get_name()))) {
      below.push_back(std::move(deeper));
    }
  }
  below.insert(below.begin(), std::move(place));
  return below;
}

std::string Texts(const std::vector<Word>& words) {
  return absl::StrJoin(words, " ", [](std::string* out, const Word& word) {
    out->append(word.text);
  });
}

// The branches of a `case` that finds the place by the words before the cursor.
std::string PathBranches(const std::vector<Place>& places) {
  std::string script;
  for (const Place& place : places) {
    if (place.path.empty()) continue;
    absl::StrAppend(&script, "      '", place.path, "') place='", place.path,
                    "' ;;\n");
  }
  return script;
}

// The branches of a `case` over place and previous word: an option's value is
// the shell's to complete.
std::string ValueBranches(const std::vector<Place>& places) {
  std::vector<std::string> patterns;
  for (const Place& place : places) {
    for (const Word& option : place.options) {
      if (!option.takes_value) continue;
      patterns.push_back(absl::StrCat("'", place.path, " ", option.text, "'"));
    }
  }
  return absl::StrJoin(patterns, "|");
}

std::string Bash(const std::vector<Place>& places) {
  std::string script = absl::StrCat(
      "# Completion of zcbroker for bash; made by `zcbroker completion "
      "bash`.\n"
      "_zcbroker() {\n"
      "  local place= word words=\n"
      "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
      "    [ \"$word\" = -- ] && return\n"
      "    case \"$place $word\" in\n",
      PathBranches(places),
      "    esac\n"
      "  done\n"
      "  case \"$place ${COMP_WORDS[COMP_CWORD-1]}\" in\n"
      "    ",
      ValueBranches(places),
      ") return ;;\n"
      "  esac\n"
      "  case \"$place\" in\n");
  for (const Place& place : places) {
    absl::StrAppend(&script, "    '", place.path, "') words='",
                    Texts(place.verbs), place.verbs.empty() ? "" : " ",
                    Texts(place.options), "' ;;\n");
  }
  absl::StrAppend(&script,
                  "  esac\n"
                  "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- "
                  "\"${COMP_WORDS[COMP_CWORD]}\")\n"
                  "}\n"
                  "complete -o default -F _zcbroker zcbroker\n");
  return script;
}

std::string ZshEntries(const std::vector<Word>& words) {
  std::string entries;
  for (const Word& word : words) {
    absl::StrAppend(&entries, " '", word.text, ":",
                    absl::StrReplaceAll(word.description, {{":", "\\:"}}), "'");
  }
  return entries;
}

std::string Zsh(const std::vector<Place>& places) {
  std::string script = absl::StrCat(
      "#compdef zcbroker\n"
      "# Made by `zcbroker completion zsh`.\n"
      "local place= word\n"
      "local -a verbs options\n"
      "for word in \"${(@)words[2,CURRENT-1]}\"; do\n"
      "  [[ $word == -- ]] && { _normal; return }\n"
      "  case \"$place $word\" in\n",
      PathBranches(places),
      "  esac\n"
      "done\n"
      "case \"$place ${words[CURRENT-1]}\" in\n"
      "  ",
      ValueBranches(places),
      ") _files; return ;;\n"
      "esac\n"
      "case \"$place\" in\n");
  for (const Place& place : places) {
    absl::StrAppend(&script, "  '", place.path, "') verbs=(",
                    ZshEntries(place.verbs), ") options=(",
                    ZshEntries(place.options), ") ;;\n");
  }
  absl::StrAppend(&script,
                  "esac\n"
                  "(( $#verbs )) && _describe command verbs\n"
                  "_describe option options\n");
  return script;
}

// The verbs of `path` are there, and none that could follow them.
std::string FishCondition(const Place& place) {
  std::vector<std::string> conditions;
  for (absl::string_view verb :
       absl::StrSplit(place.path, ' ', absl::SkipEmpty())) {
    conditions.push_back(absl::StrCat("__fish_seen_subcommand_from ", verb));
  }
  if (!place.verbs.empty()) {
    conditions.push_back(
        absl::StrCat("not __fish_seen_subcommand_from ", Texts(place.verbs)));
  }
  return absl::StrJoin(conditions, "; and ");
}

std::string Fish(const std::vector<Place>& places) {
  std::string script =
      "# Completion of zcbroker for fish; made by `zcbroker completion "
      "fish`.\n";
  for (const Place& place : places) {
    const std::string begin =
        absl::StrCat("complete -c zcbroker -n '", FishCondition(place), "'");
    for (const Word& verb : place.verbs) {
      absl::StrAppend(&script, begin, " -f -a ", verb.text, " -d '",
                      verb.description, "'\n");
    }
    for (const Word& option : place.options) {
      absl::StrAppend(&script, begin, option.takes_value ? " -r" : "", " -l ",
                      option.text.substr(2), " -d '", option.description,
                      "'\n");
    }
  }
  return script;
}

}  // namespace

std::string CompletionScript(const CLI::App& app, absl::string_view shell) {
  const std::vector<Place> places = PlacesOf(app, "");
  if (shell == "bash") return Bash(places);
  if (shell == "zsh") return Zsh(places);
  return Fish(places);
}

}  // namespace zcbroker::cli
