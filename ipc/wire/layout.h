// The layout of every zccache message, once, for all that must walk it: the
// bincode reader and writer and the check of required fields. Internal to
// ipc/wire. Source: spec zccache-ipc 4.1 to 4.6; field order is bincode's.
//
// `Fields(a, m)` shows the fields of `m` to the archive `a` in order and stops
// at the first call that returns false. `A::Ref<M>` is how the archive holds a
// message (M& or const M&). For each kind of field an archive has:
//
//   U32 U64 I32 Bool Str Bytes   a plain value
//   Strings U32s Repeated        vec<T>
//   Required                     a message that must be present
//   Part                         a message whose presence `Variant` settled
//   Optional OptionalStr OptionalHash OptionalRepeated    opt<T>
//   Enum                         prost value = bincode index + 1
//   Variant                      chooses an arm of a oneof: prost number =
//                                bincode index + 1; 0 = none, when writing
//   Unit                         an arm without content
#ifndef ZCBROKER_IPC_WIRE_LAYOUT_H_
#define ZCBROKER_IPC_WIRE_LAYOUT_H_

#include <cstdint>

#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc::layout {

namespace v1 = zccache::v1;

// The accessors of one field of `M`, the message at hand.
#define ZCB_VALUE(field) &M::field, &M::set_##field
#define ZCB_BUFFER(field) &M::field, &M::mutable_##field
#define ZCB_OPTIONAL(field) &M::has_##field, &M::field, &M::mutable_##field
#define ZCB_REQUIRED(message, field) #message "." #field, ZCB_OPTIONAL(field)

template <class A>
bool Fields(A& a, typename A::template Ref<v1::Path> m) {
  using M = v1::Path;
  return a.Str(m, ZCB_BUFFER(value));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::EnvVar> m) {
  using M = v1::EnvVar;
  return a.Str(m, ZCB_BUFFER(name)) && a.Str(m, ZCB_BUFFER(value));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::PhaseProfileSummary> m) {
  using M = v1::PhaseProfileSummary;
  return a.U64(m, ZCB_VALUE(hit_count)) && a.U64(m, ZCB_VALUE(miss_count)) &&
         a.U64(m, ZCB_VALUE(parse_args_ns)) &&
         a.U64(m, ZCB_VALUE(build_context_ns)) &&
         a.U64(m, ZCB_VALUE(hash_source_ns)) &&
         a.U64(m, ZCB_VALUE(hash_headers_ns)) &&
         a.U64(m, ZCB_VALUE(depgraph_check_ns)) &&
         a.U64(m, ZCB_VALUE(request_cache_lookup_ns)) &&
         a.U64(m, ZCB_VALUE(cross_root_validate_ns)) &&
         a.U64(m, ZCB_VALUE(artifact_lookup_ns)) &&
         a.U64(m, ZCB_VALUE(write_output_ns)) &&
         a.U64(m, ZCB_VALUE(bookkeeping_ns)) &&
         a.U64(m, ZCB_VALUE(total_hit_ns)) &&
         a.U64(m, ZCB_VALUE(compiler_exec_ns)) &&
         a.U64(m, ZCB_VALUE(include_scan_ns)) &&
         a.U64(m, ZCB_VALUE(hash_all_ns)) &&
         a.U64(m, ZCB_VALUE(artifact_store_ns)) &&
         a.U64(m, ZCB_VALUE(total_miss_ns));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::SessionStats> m) {
  using M = v1::SessionStats;
  return a.U64(m, ZCB_VALUE(duration_ms)) &&
         a.U64(m, ZCB_VALUE(compilations)) && a.U64(m, ZCB_VALUE(hits)) &&
         a.U64(m, ZCB_VALUE(misses)) && a.U64(m, ZCB_VALUE(non_cacheable)) &&
         a.U64(m, ZCB_VALUE(errors)) && a.U64(m, ZCB_VALUE(errors_cached)) &&
         a.U64(m, ZCB_VALUE(time_saved_ms)) &&
         a.U64(m, ZCB_VALUE(unique_sources)) &&
         a.U64(m, ZCB_VALUE(bytes_read)) &&
         a.U64(m, ZCB_VALUE(bytes_written)) &&
         a.Optional(m, ZCB_OPTIONAL(phase_profile));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::PrivateDaemonOwnerStatus> m) {
  using M = v1::PrivateDaemonOwnerStatus;
  return a.U32(m, ZCB_VALUE(pid)) && a.U64(m, ZCB_VALUE(ref_count));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::PrivateDaemonStatus> m) {
  using M = v1::PrivateDaemonStatus;
  return a.Bool(m, ZCB_VALUE(enabled)) && a.Repeated(m, ZCB_BUFFER(owners)) &&
         a.Strings(m, ZCB_BUFFER(private_env_keys));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::PrivateDaemonSessionOptions> m) {
  using M = v1::PrivateDaemonSessionOptions;
  return a.OptionalStr(m, ZCB_OPTIONAL(daemon_name)) &&
         a.OptionalStr(m, ZCB_OPTIONAL(endpoint)) &&
         a.Optional(m, ZCB_OPTIONAL(cache_dir)) &&
         a.U32s(m, ZCB_BUFFER(owner_pids)) && a.Repeated(m, ZCB_BUFFER(env));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::ArtifactPayload> m) {
  using M = v1::ArtifactPayload;
  uint32_t arm = m.body_case();
  if (!a.Variant("ArtifactPayload.body", 2, &arm)) return false;
  switch (arm) {
    case M::kBytes:
      return a.Bytes(m, ZCB_BUFFER(bytes));
    case M::kPath:
      return a.Part(m, ZCB_BUFFER(path));
  }
  return false;
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::ArtifactOutput> m) {
  using M = v1::ArtifactOutput;
  return a.Str(m, ZCB_BUFFER(name)) &&
         a.Required(m, ZCB_REQUIRED(ArtifactOutput, payload));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::ArtifactData> m) {
  using M = v1::ArtifactData;
  return a.Repeated(m, ZCB_BUFFER(outputs)) &&
         a.Bytes(m, ZCB_BUFFER(stdout_data)) &&
         a.Bytes(m, ZCB_BUFFER(stderr_data)) && a.I32(m, ZCB_VALUE(exit_code));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::LookupResult> m) {
  using M = v1::LookupResult;
  uint32_t arm = m.body_case();
  if (!a.Variant("LookupResult.body", 2, &arm)) return false;
  switch (arm) {
    case M::kHit:
      return a.Part(m, ZCB_BUFFER(hit));
    case M::kMiss:
      return a.Unit(m, &M::mutable_miss);
  }
  return false;
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::StoreResult> m) {
  using M = v1::StoreResult;
  return a.Enum(m, "StoreResult.kind", v1::STORE_RESULT_KIND_ALREADY_EXISTS,
                ZCB_VALUE(kind));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::ExecOutputStreams> m) {
  using M = v1::ExecOutputStreams;
  return a.Bool(m, ZCB_VALUE(want_stdout)) && a.Bool(m, ZCB_VALUE(want_stderr));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::RustArtifactInfo> m) {
  using M = v1::RustArtifactInfo;
  return a.Str(m, ZCB_BUFFER(cache_key)) &&
         a.Strings(m, ZCB_BUFFER(output_names)) &&
         a.U64(m, ZCB_VALUE(payload_count));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::DaemonStatus> m) {
  using M = v1::DaemonStatus;
  return a.Str(m, ZCB_BUFFER(version)) &&
         a.Str(m, ZCB_BUFFER(daemon_namespace)) &&
         a.Str(m, ZCB_BUFFER(endpoint)) &&
         a.Required(m, ZCB_REQUIRED(DaemonStatus, private_daemon)) &&
         a.U64(m, ZCB_VALUE(artifact_count)) &&
         a.U64(m, ZCB_VALUE(cache_size_bytes)) &&
         a.U64(m, ZCB_VALUE(metadata_entries)) &&
         a.U64(m, ZCB_VALUE(uptime_secs)) && a.U64(m, ZCB_VALUE(cache_hits)) &&
         a.U64(m, ZCB_VALUE(cache_misses)) &&
         a.U64(m, ZCB_VALUE(total_compilations)) &&
         a.U64(m, ZCB_VALUE(non_cacheable)) &&
         a.U64(m, ZCB_VALUE(compile_errors)) &&
         a.U64(m, ZCB_VALUE(compile_errors_cached)) &&
         a.U64(m, ZCB_VALUE(time_saved_ms)) &&
         a.U64(m, ZCB_VALUE(total_links)) && a.U64(m, ZCB_VALUE(link_hits)) &&
         a.U64(m, ZCB_VALUE(link_misses)) &&
         a.U64(m, ZCB_VALUE(link_non_cacheable)) &&
         a.U64(m, ZCB_VALUE(dep_graph_contexts)) &&
         a.U64(m, ZCB_VALUE(dep_graph_files)) &&
         a.U64(m, ZCB_VALUE(sessions_total)) &&
         a.U64(m, ZCB_VALUE(sessions_active)) &&
         a.Required(m, ZCB_REQUIRED(DaemonStatus, cache_dir)) &&
         a.U32(m, ZCB_VALUE(dep_graph_version)) &&
         a.U64(m, ZCB_VALUE(dep_graph_disk_size)) &&
         a.Bool(m, ZCB_VALUE(dep_graph_persisted));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::Lookup> m) {
  using M = v1::Lookup;
  return a.Str(m, ZCB_BUFFER(cache_key));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::Store> m) {
  using M = v1::Store;
  return a.Str(m, ZCB_BUFFER(cache_key)) &&
         a.Required(m, ZCB_REQUIRED(Store, artifact));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::SessionStart> m) {
  using M = v1::SessionStart;
  return a.U32(m, ZCB_VALUE(client_pid)) &&
         a.Required(m, ZCB_REQUIRED(SessionStart, working_dir)) &&
         a.Optional(m, ZCB_OPTIONAL(log_file)) &&
         a.Bool(m, ZCB_VALUE(track_stats)) &&
         a.Optional(m, ZCB_OPTIONAL(journal_path)) &&
         a.Bool(m, ZCB_VALUE(profile)) &&
         a.Optional(m, ZCB_OPTIONAL(private_daemon));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::Compile> m) {
  using M = v1::Compile;
  return a.Str(m, ZCB_BUFFER(session_id)) && a.Strings(m, ZCB_BUFFER(args)) &&
         a.Required(m, ZCB_REQUIRED(Compile, cwd)) &&
         a.Required(m, ZCB_REQUIRED(Compile, compiler)) &&
         a.OptionalRepeated(m, ZCB_VALUE(env_is_set), ZCB_BUFFER(env)) &&
         a.Bytes(m, ZCB_BUFFER(stdin_data));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::SessionEnd> m) {
  using M = v1::SessionEnd;
  return a.Str(m, ZCB_BUFFER(session_id));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::CompileEphemeral> m) {
  using M = v1::CompileEphemeral;
  return a.U32(m, ZCB_VALUE(client_pid)) &&
         a.Required(m, ZCB_REQUIRED(CompileEphemeral, working_dir)) &&
         a.Required(m, ZCB_REQUIRED(CompileEphemeral, compiler)) &&
         a.Strings(m, ZCB_BUFFER(args)) &&
         a.Required(m, ZCB_REQUIRED(CompileEphemeral, cwd)) &&
         a.OptionalRepeated(m, ZCB_VALUE(env_is_set), ZCB_BUFFER(env)) &&
         a.Bytes(m, ZCB_BUFFER(stdin_data));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::LinkEphemeral> m) {
  using M = v1::LinkEphemeral;
  return a.U32(m, ZCB_VALUE(client_pid)) &&
         a.Required(m, ZCB_REQUIRED(LinkEphemeral, tool)) &&
         a.Strings(m, ZCB_BUFFER(args)) &&
         a.Required(m, ZCB_REQUIRED(LinkEphemeral, cwd)) &&
         a.OptionalRepeated(m, ZCB_VALUE(env_is_set), ZCB_BUFFER(env));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::SessionStatsRequest> m) {
  using M = v1::SessionStatsRequest;
  return a.Str(m, ZCB_BUFFER(session_id));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::FingerprintCheck> m) {
  using M = v1::FingerprintCheck;
  return a.Required(m, ZCB_REQUIRED(FingerprintCheck, cache_file)) &&
         a.Str(m, ZCB_BUFFER(cache_type)) &&
         a.Required(m, ZCB_REQUIRED(FingerprintCheck, root)) &&
         a.Strings(m, ZCB_BUFFER(extensions)) &&
         a.Strings(m, ZCB_BUFFER(include_globs)) &&
         a.Strings(m, ZCB_BUFFER(exclude));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::FingerprintMarkSuccess> m) {
  using M = v1::FingerprintMarkSuccess;
  return a.Required(m, ZCB_REQUIRED(FingerprintMarkSuccess, cache_file));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::FingerprintMarkFailure> m) {
  using M = v1::FingerprintMarkFailure;
  return a.Required(m, ZCB_REQUIRED(FingerprintMarkFailure, cache_file));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::FingerprintInvalidate> m) {
  using M = v1::FingerprintInvalidate;
  return a.Required(m, ZCB_REQUIRED(FingerprintInvalidate, cache_file));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::GenericToolExec> m) {
  using M = v1::GenericToolExec;
  return a.Required(m, ZCB_REQUIRED(GenericToolExec, tool)) &&
         a.Strings(m, ZCB_BUFFER(args)) &&
         a.Required(m, ZCB_REQUIRED(GenericToolExec, cwd)) &&
         a.Repeated(m, ZCB_BUFFER(env)) &&
         a.Repeated(m, ZCB_BUFFER(input_files)) &&
         a.Bytes(m, ZCB_BUFFER(input_extra)) &&
         a.Required(m, ZCB_REQUIRED(GenericToolExec, output_streams)) &&
         a.Repeated(m, ZCB_BUFFER(output_files)) &&
         a.OptionalHash(m, ZCB_OPTIONAL(tool_hash)) &&
         a.Enum(m, "GenericToolExec.cache_policy",
                v1::EXEC_CACHE_POLICY_READ_ONLY, ZCB_VALUE(cache_policy)) &&
         a.Bool(m, ZCB_VALUE(cwd_in_key)) &&
         a.Repeated(m, ZCB_BUFFER(include_scan_files)) &&
         a.Repeated(m, ZCB_BUFFER(include_dirs)) &&
         a.Repeated(m, ZCB_BUFFER(system_include_dirs)) &&
         a.Repeated(m, ZCB_BUFFER(iquote_dirs)) &&
         a.Optional(m, ZCB_OPTIONAL(depfile)) &&
         a.Bool(m, ZCB_VALUE(non_deterministic)) &&
         a.Strings(m, ZCB_BUFFER(key_args_filter));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::ReleaseWorktreeHandles> m) {
  using M = v1::ReleaseWorktreeHandles;
  return a.Required(m, ZCB_REQUIRED(ReleaseWorktreeHandles, path));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::Request> m) {
  using M = v1::Request;
  uint32_t arm = m.body_case();
  if (!a.Variant("Request.body", 19, &arm)) return false;
  switch (arm) {
    case M::kPing:
      return a.Unit(m, &M::mutable_ping);
    case M::kShutdown:
      return a.Unit(m, &M::mutable_shutdown);
    case M::kStatus:
      return a.Unit(m, &M::mutable_status);
    case M::kLookup:
      return a.Part(m, ZCB_BUFFER(lookup));
    case M::kStore:
      return a.Part(m, ZCB_BUFFER(store));
    case M::kSessionStart:
      return a.Part(m, ZCB_BUFFER(session_start));
    case M::kCompile:
      return a.Part(m, ZCB_BUFFER(compile));
    case M::kSessionEnd:
      return a.Part(m, ZCB_BUFFER(session_end));
    case M::kClear:
      return a.Unit(m, &M::mutable_clear);
    case M::kCompileEphemeral:
      return a.Part(m, ZCB_BUFFER(compile_ephemeral));
    case M::kLinkEphemeral:
      return a.Part(m, ZCB_BUFFER(link_ephemeral));
    case M::kSessionStats:
      return a.Part(m, ZCB_BUFFER(session_stats));
    case M::kFingerprintCheck:
      return a.Part(m, ZCB_BUFFER(fingerprint_check));
    case M::kFingerprintMarkSuccess:
      return a.Part(m, ZCB_BUFFER(fingerprint_mark_success));
    case M::kFingerprintMarkFailure:
      return a.Part(m, ZCB_BUFFER(fingerprint_mark_failure));
    case M::kFingerprintInvalidate:
      return a.Part(m, ZCB_BUFFER(fingerprint_invalidate));
    case M::kListRustArtifacts:
      return a.Unit(m, &M::mutable_list_rust_artifacts);
    case M::kGenericToolExec:
      return a.Part(m, ZCB_BUFFER(generic_tool_exec));
    case M::kReleaseWorktreeHandles:
      return a.Part(m, ZCB_BUFFER(release_worktree_handles));
  }
  return false;
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::SessionStarted> m) {
  using M = v1::SessionStarted;
  return a.Str(m, ZCB_BUFFER(session_id)) &&
         a.Optional(m, ZCB_OPTIONAL(journal_path));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::CompileResult> m) {
  using M = v1::CompileResult;
  return a.I32(m, ZCB_VALUE(exit_code)) &&
         a.Bytes(m, ZCB_BUFFER(stdout_data)) &&
         a.Bytes(m, ZCB_BUFFER(stderr_data)) && a.Bool(m, ZCB_VALUE(cached));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::SessionEnded> m) {
  using M = v1::SessionEnded;
  return a.Optional(m, ZCB_OPTIONAL(stats));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::LinkResult> m) {
  using M = v1::LinkResult;
  return a.I32(m, ZCB_VALUE(exit_code)) &&
         a.Bytes(m, ZCB_BUFFER(stdout_data)) &&
         a.Bytes(m, ZCB_BUFFER(stderr_data)) && a.Bool(m, ZCB_VALUE(cached)) &&
         a.OptionalStr(m, ZCB_OPTIONAL(warning));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::Error> m) {
  using M = v1::Error;
  return a.Str(m, ZCB_BUFFER(message));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::Cleared> m) {
  using M = v1::Cleared;
  return a.U64(m, ZCB_VALUE(artifacts_removed)) &&
         a.U64(m, ZCB_VALUE(metadata_cleared)) &&
         a.U64(m, ZCB_VALUE(dep_graph_contexts_cleared)) &&
         a.U64(m, ZCB_VALUE(on_disk_bytes_freed));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::SessionStatsResult> m) {
  using M = v1::SessionStatsResult;
  return a.Optional(m, ZCB_OPTIONAL(stats));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::FingerprintCheckResult> m) {
  using M = v1::FingerprintCheckResult;
  return a.Str(m, ZCB_BUFFER(decision)) &&
         a.OptionalStr(m, ZCB_OPTIONAL(reason)) &&
         a.Strings(m, ZCB_BUFFER(changed_files));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::RustArtifactList> m) {
  using M = v1::RustArtifactList;
  return a.Repeated(m, ZCB_BUFFER(artifacts));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::GenericToolExecResult> m) {
  using M = v1::GenericToolExecResult;
  return a.I32(m, ZCB_VALUE(exit_code)) &&
         a.Bytes(m, ZCB_BUFFER(stdout_data)) &&
         a.Bytes(m, ZCB_BUFFER(stderr_data)) &&
         a.Repeated(m, ZCB_BUFFER(output_files)) &&
         a.Bool(m, ZCB_VALUE(cached)) && a.Str(m, ZCB_BUFFER(cache_key_hex));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::Backpressure> m) {
  using M = v1::Backpressure;
  return a.U32(m, ZCB_VALUE(queue_depth)) &&
         a.U32(m, ZCB_VALUE(retry_after_ms)) && a.Str(m, ZCB_BUFFER(reason));
}

template <class A>
bool Fields(A& a,
            typename A::template Ref<v1::ReleaseWorktreeHandlesResult> m) {
  using M = v1::ReleaseWorktreeHandlesResult;
  return a.U32(m, ZCB_VALUE(inspected)) && a.U32(m, ZCB_VALUE(released)) &&
         a.Strings(m, ZCB_BUFFER(sessions_dropped)) &&
         a.Repeated(m, ZCB_BUFFER(unreleased));
}

template <class A>
bool Fields(A& a, typename A::template Ref<v1::Response> m) {
  using M = v1::Response;
  uint32_t arm = m.body_case();
  if (!a.Variant("Response.body", 18, &arm)) return false;
  switch (arm) {
    case M::kPong:
      return a.Unit(m, &M::mutable_pong);
    case M::kShuttingDown:
      return a.Unit(m, &M::mutable_shutting_down);
    case M::kStatus:
      return a.Part(m, ZCB_BUFFER(status));
    case M::kLookupResult:
      return a.Part(m, ZCB_BUFFER(lookup_result));
    case M::kStoreResult:
      return a.Part(m, ZCB_BUFFER(store_result));
    case M::kSessionStarted:
      return a.Part(m, ZCB_BUFFER(session_started));
    case M::kCompileResult:
      return a.Part(m, ZCB_BUFFER(compile_result));
    case M::kSessionEnded:
      return a.Part(m, ZCB_BUFFER(session_ended));
    case M::kLinkResult:
      return a.Part(m, ZCB_BUFFER(link_result));
    case M::kError:
      return a.Part(m, ZCB_BUFFER(error));
    case M::kCleared:
      return a.Part(m, ZCB_BUFFER(cleared));
    case M::kSessionStatsResult:
      return a.Part(m, ZCB_BUFFER(session_stats_result));
    case M::kFingerprintCheckResult:
      return a.Part(m, ZCB_BUFFER(fingerprint_check_result));
    case M::kFingerprintAck:
      return a.Unit(m, &M::mutable_fingerprint_ack);
    case M::kRustArtifactList:
      return a.Part(m, ZCB_BUFFER(rust_artifact_list));
    case M::kGenericToolExecResult:
      return a.Part(m, ZCB_BUFFER(generic_tool_exec_result));
    case M::kBackpressure:
      return a.Part(m, ZCB_BUFFER(backpressure));
    case M::kReleaseWorktreeHandlesResult:
      return a.Part(m, ZCB_BUFFER(release_worktree_handles_result));
  }
  return false;
}

#undef ZCB_VALUE
#undef ZCB_BUFFER
#undef ZCB_OPTIONAL
#undef ZCB_REQUIRED

}  // namespace zcbroker::ipc::layout

#endif  // ZCBROKER_IPC_WIRE_LAYOUT_H_
