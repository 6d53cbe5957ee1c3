package zcbroker.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import com.google.protobuf.Descriptors.EnumValueDescriptor;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.util.JsonFormat;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HexFormat;
import java.util.Optional;
import zcbroker.client.BrokerException;
import zcbroker.client.ConnectOptions;
import zcbroker.client.Connection;
import zcbroker.client.NamedRoute;
import zcbroker.client.NoDaemonException;
import zcbroker.client.Zcbroker;
import zcbroker.v1.NegotiateRequest;
import zcbroker.v1.NegotiateResponse;
import zcbroker.v1.RouteInfo;
import zcbroker.v1.WireLane;

/**
 * The runner of tests/conformance for this library: one request, a JSON object, on standard input; one result, a JSON
 * object, on standard output.
 */
public final class Runner {
  private Runner() {}

  public static void main(String[] arguments) throws IOException {
    JsonObject call =
        JsonParser.parseReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)).getAsJsonObject();
    JsonObject args = call.has("args") ? call.getAsJsonObject("args") : new JsonObject();
    String op = call.get("op").getAsString();
    JsonObject result = switch (op) {
      case "runtime_dir" -> runtimeDir();
      case "named_route" -> namedRoute(args);
      case "decode_route_info" -> decodeRouteInfo(args);
      case "encode_request" -> encodeRequest(args);
      case "decode_response" -> decodeResponse(args);
      case "negotiate" -> negotiate(args);
      case "connect" -> connect(args);
      default -> throw new IllegalArgumentException("there is no op " + op);
    };
    System.out.write((result + "\n").getBytes(StandardCharsets.UTF_8));
    System.out.flush();
  }

  private static JsonObject runtimeDir() {
    try {
      return object("path", text(Zcbroker.runtimeDir().toString()));
    } catch (IOException none) {
      return object("error", text("no_runtime_dir"));
    }
  }

  private static JsonObject namedRoute(JsonObject args) {
    try {
      NamedRoute route = Zcbroker.namedRoute(Path.of(string(args, "runtime_dir")), string(args, "service"),
          string(args, "version"));
      JsonObject result = object("socket", text(route.socket().toString()));
      result.addProperty("info", route.info().toString());
      return result;
    } catch (IllegalArgumentException invalid) {
      return object("error", text("name_invalid"));
    }
  }

  private static JsonObject decodeRouteInfo(JsonObject args) {
    try {
      return object("route", json(Zcbroker.decodeRouteInfo(bytes(args))));
    } catch (InvalidProtocolBufferException invalid) {
      return object("error", text("route_info_invalid"));
    }
  }

  private static JsonObject encodeRequest(JsonObject args) throws IOException {
    return object("hex", text(HexFormat.of().formatHex(request(args).toByteArray())));
  }

  private static JsonObject decodeResponse(JsonObject args) throws IOException {
    try {
      return object("response", json(NegotiateResponse.parseFrom(bytes(args))));
    } catch (InvalidProtocolBufferException invalid) {
      return object("error", text("response_invalid"));
    }
  }

  private static JsonObject negotiate(JsonObject args) throws IOException {
    try {
      NegotiateResponse answer = Zcbroker.negotiate(request(args), deadline(args));
      JsonObject result = object("origin", text(answer.getOrigin().name()));
      result.add("route", json(answer.getRoute()));
      return result;
    } catch (BrokerException error) {
      return object("error", json(error));
    }
  }

  private static JsonObject connect(JsonObject args) throws IOException {
    ConnectOptions options =
        ConnectOptions.of(string(args, "service"), string(args, "version")).withDeadline(deadline(args));
    JsonObject error = new JsonObject();
    try (Connection connected = Zcbroker.connect(Path.of(string(args, "direct_endpoint")), options)) {
      JsonObject result = object("lane", text(connected.lane().label()));
      result.add("by", connected.route().map(route -> text(route.source().label())).orElse(JsonNull.INSTANCE));
      result.add("fallback", fallback(connected.fallback()));
      result.addProperty("endpoint", connected.endpoint().toString());
      return result;
    } catch (IllegalArgumentException invalid) {
      error.addProperty("kind", "invalid_argument");
      error.add("fallback", JsonNull.INSTANCE);
    } catch (BrokerException strict) {
      error.addProperty("kind", "strict");
      error.add("fallback", fallback(Optional.of(strict)));
    } catch (NoDaemonException none) {
      error.addProperty("kind", "no_daemon");
      error.add("fallback", fallback(none.fallback()));
    }
    return object("error", error);
  }

  // --- To and from JSON

  private static NegotiateRequest request(JsonObject args) throws IOException {
    NegotiateRequest.Builder request = NegotiateRequest.newBuilder();
    JsonFormat.parser().merge(args.get("request").toString(), request);
    return request.build();
  }

  private static JsonElement json(MessageOrBuilder message) {
    try {
      return JsonParser.parseString(JsonFormat.printer().print(message));
    } catch (InvalidProtocolBufferException impossible) {
      throw new AssertionError(impossible);
    }
  }

  /** By the proto's own field names, with lanes by name, for the info holds their numbers. */
  private static JsonObject json(RouteInfo info) {
    JsonArray lanes = new JsonArray();
    info.getLanesList().stream()
        .map(WireLane::forNumber)
        .filter(lane -> lane != null)
        .map(WireLane::getValueDescriptor)
        .map(EnumValueDescriptor::getName)
        .forEach(lanes::add);
    JsonObject result = new JsonObject();
    result.addProperty("service", info.getService());
    result.addProperty("version", info.getVersion());
    result.addProperty("endpoint", info.getEndpoint());
    result.add("lanes", lanes);
    result.addProperty("binary", info.getBinary());
    result.addProperty("pid", Integer.toUnsignedLong(info.getPid()));
    result.addProperty("start_time", Long.toUnsignedString(info.getStartTime()));
    result.addProperty("boot_id", info.getBootId());
    result.addProperty("group", Integer.toUnsignedLong(info.getGroup()));
    result.addProperty("generation", Long.toUnsignedString(info.getGeneration()));
    result.addProperty("cache_root", info.getCacheRoot());
    result.addProperty("daemon_namespace", info.getDaemonNamespace());
    result.addProperty("mount_namespace", info.getMountNamespace());
    return result;
  }

  private static JsonObject json(BrokerException error) {
    return error.refusal().map(refusal -> {
      JsonArray installed = new JsonArray();
      refusal.detail().getInstalledVersionsList().forEach(installed::add);
      JsonObject result = object("code", text(refusal.code().name()));
      result.addProperty("reason", refusal.reason());
      result.addProperty("domain", "zcbroker");
      result.addProperty("retry", refusal.retryAfter().isPresent());
      result.add("installed_versions", installed);
      return result;
    }).orElseGet(() -> object("fallback", text(error.reason().label())));
  }

  private static JsonElement fallback(Optional<BrokerException> why) {
    return why.map(error -> text(error.reason().label())).orElse(JsonNull.INSTANCE);
  }

  private static JsonElement text(String text) {
    return new JsonPrimitive(text);
  }

  private static JsonObject object(String name, JsonElement value) {
    JsonObject result = new JsonObject();
    result.add(name, value);
    return result;
  }

  private static String string(JsonObject args, String name) {
    return args.get(name).getAsString();
  }

  private static byte[] bytes(JsonObject args) {
    return HexFormat.of().parseHex(string(args, "hex"));
  }

  private static Duration deadline(JsonObject args) {
    return Duration.ofMillis(args.get("deadline_ms").getAsLong());
  }
}
