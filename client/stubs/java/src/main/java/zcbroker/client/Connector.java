package zcbroker.client;

import java.io.IOException;
import java.nio.channels.SocketChannel;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import zcbroker.v1.BackendRoute;
import zcbroker.v1.NegotiateRequest;
import zcbroker.v1.RouteInfo;
import zcbroker.v1.WireLane;
import zcbroker.v1.World;

/** One {@link Zcbroker#connect}. */
final class Connector {
  private final ConnectOptions options;
  private final Deadline deadline;

  Connector(ConnectOptions options) {
    this.options = options;
    this.deadline = Deadline.after(options.deadline());
  }

  Connection connect(Path direct) throws IOException {
    if (!Sockets.isEndpoint(direct.toString())) {
      throw new IllegalArgumentException(direct + " must be an absolute path of at most 107 bytes");
    }
    String fake = System.getenv("RUNNING_PROCESS_FAKE_BACKEND");
    boolean faked = fake != null && !fake.isEmpty();
    if (isOne("RUNNING_PROCESS_DISABLE") || (!faked && !isOne("ZCCACHE_BROKER_CONNECT"))) {
      return dialDirect(direct, null);
    }
    try {
      return faked ? dialFakeBackend(fake) : dialBroker();
    } catch (BrokerException why) {
      if (isOne("ZCBROKER_STRICT")) {
        throw why;
      }
      return dialDirect(direct, why);
    }
  }

  private static boolean isOne(String name) {
    return "1".equals(System.getenv(name));
  }

  private Connection dialDirect(Path endpoint, BrokerException fallback) throws NoDaemonException {
    try {
      return new Connection(Sockets.dial(endpoint, deadline), Lane.DIRECT, endpoint, Optional.empty(),
          Optional.ofNullable(fallback));
    } catch (IOException error) {
      throw new NoDaemonException(endpoint, error, fallback);
    }
  }

  private Connection dialFakeBackend(String text) throws BrokerException {
    String problem;
    if (Sockets.isEndpoint(text)) {
      Path endpoint = Path.of(text);
      try {
        return new Connection(Sockets.dial(endpoint, deadline), Lane.FAKE_BACKEND, endpoint, Optional.empty(),
            Optional.empty());
      } catch (IOException error) {
        problem = "RUNNING_PROCESS_FAKE_BACKEND: " + text + ": " + error.getMessage();
      }
    } else {
      problem = "RUNNING_PROCESS_FAKE_BACKEND must be an absolute path of at most 107 bytes";
    }
    System.err.println("zcbroker: " + problem + "; connecting directly");
    throw new BrokerException(FallbackReason.FAKE_BACKEND_DEAD, problem);
  }

  /** The route info first; where it does not lead to a daemon, whatever the reason, the broker is asked once. */
  private Connection dialBroker() throws BrokerException {
    World world;
    try {
      world = options.world().orElseGet(Worlds::own);
    } catch (InvalidPathException unreadable) {
      throw new BrokerException(FallbackReason.BROKER_UNREACHABLE,
          "HOME or ZCCACHE_CACHE_DIR has characters that this locale has not: " + unreadable.getMessage());
    }
    Optional<Connection> named = dialNamed(world);
    return named.isPresent() ? named.get() : dialNegotiated(world);
  }

  private Optional<Connection> dialNamed(World world) {
    if (!Routes.areNames(options.service(), options.version())) {
      return Optional.empty();
    }
    try (PrivateDir dir = RuntimeDir.open()) {
      Optional<Connection> named = dialNamed(dir, world);
      if (named.isPresent()) {
        return named;
      }
      try (PrivateDir worlds = dir.openChild("worlds"); PrivateDir other = worlds.openChild(Worlds.id(world))) {
        return dialNamed(other, world);
      }
    } catch (IOException nothingThere) {
      return Optional.empty();
    }
  }

  private Optional<Connection> dialNamed(PrivateDir dir, World world) {
    try {
      RouteInfo info = Routes.read(dir, options.service(), options.version());
      List<WireLane> lanes = knownLanes(info.getLanesList());
      Path endpoint = Path.of(info.getEndpoint());
      if (!Worlds.fits(info, world) || !isSpeakable(lanes)) {
        return Optional.empty();
      }
      SocketChannel channel = Sockets.dial(endpoint, deadline);
      // An info outlives a backend whose broker was killed: what listens there
      // now may be another version's.
      if (!Sockets.isOurs(channel) || !Sockets.mayListen(info.getPid(), endpoint)) {
        Sockets.closeQuietly(channel);
        return Optional.empty();
      }
      Route route = new Route(RouteSource.ROUTE_INFO, info.getVersion(), lanes, info.getPid(), info.getStartTime(),
          info.getBootId(), info.getGeneration());
      return Optional.of(new Connection(channel, Lane.BROKER, endpoint, Optional.of(route), Optional.empty()));
    } catch (IOException stale) {
      return Optional.empty();
    }
  }

  private Connection dialNegotiated(World world) throws BrokerException {
    NegotiateRequest request = NegotiateRequest.newBuilder()
        .setService(options.service())
        .setWantedVersion(options.version())
        .addAllAcceptedLanes(options.acceptedLanes())
        .setClientName(options.clientName())
        .setClientVersion(options.clientVersion())
        .setStartPolicy(options.startPolicy())
        .setWorld(world)
        .build();
    BackendRoute answer = BrokerChannel.negotiate(request, deadline).getRoute();
    List<WireLane> lanes = knownLanes(answer.getLanesValueList());
    Path endpoint = Path.of(answer.getEndpoint());
    if (!lanes.isEmpty() && !isSpeakable(lanes)) {
      throw new BrokerException(FallbackReason.LANE_UNSUPPORTED, endpoint + " speaks no lane of ours");
    }
    try {
      SocketChannel channel = Sockets.dial(endpoint, deadline);
      if (Sockets.isOurs(channel)) {
        Route route = new Route(RouteSource.NEGOTIATION, answer.getVersion(), lanes, answer.getPid(),
            answer.getStartTime(), answer.getBootId(), answer.getGeneration());
        return new Connection(channel, Lane.BROKER, endpoint, Optional.of(route), Optional.empty());
      }
      Sockets.closeQuietly(channel);
    } catch (IOException error) {
      throw new BrokerException(FallbackReason.ROUTE_DEAD, endpoint + ": " + error.getMessage());
    }
    throw new BrokerException(FallbackReason.ROUTE_FOREIGN, endpoint + " belongs to another user");
  }

  private boolean isSpeakable(List<WireLane> spoken) {
    return options.acceptedLanes().isEmpty() || options.acceptedLanes().stream().anyMatch(spoken::contains);
  }

  /** Those of later versions are passed over. */
  private static List<WireLane> knownLanes(List<Integer> numbers) {
    return numbers.stream()
        .map(WireLane::forNumber)
        .filter(lane -> lane != null && lane != WireLane.WIRE_LANE_UNSPECIFIED)
        .toList();
  }
}
