"""One archive of all objects that its deps link: a library for those who do not
build with Bazel. The system's libraries are not in it."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")

def _cc_static_archive_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    archives = []
    for dep in ctx.attr.deps:
        for linked in dep[CcInfo].linking_context.linker_inputs.to_list():
            for library in linked.libraries:
                archive = library.pic_static_library or library.static_library
                if archive and archive not in archives:
                    archives.append(archive)

    # ar's own language is the way to put archives into one. Then as Debian's
    # packages have it: no debug information, no note of the compiler.
    script = ctx.actions.declare_file(ctx.label.name + ".mri")
    ctx.actions.write(script, "\n".join(
        ["CREATE " + ctx.outputs.out.path] +
        ["ADDLIB " + archive.path for archive in archives] +
        ["SAVE", "END", ""],
    ))
    ctx.actions.run_shell(
        command = '"$1" -M <"$2" && "$3" --strip-debug -R .comment -R .note --enable-deterministic-archives "$4"',
        arguments = [toolchain.ar_executable, script.path, toolchain.strip_executable, ctx.outputs.out.path],
        inputs = depset(archives + [script], transitive = [toolchain.all_files]),
        outputs = [ctx.outputs.out],
        mnemonic = "CcStaticArchive",
    )
    return [DefaultInfo(files = depset([ctx.outputs.out]))]

cc_static_archive = rule(
    implementation = _cc_static_archive_impl,
    attrs = {
        "deps": attr.label_list(providers = [CcInfo]),
        "out": attr.output(mandatory = True),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)
