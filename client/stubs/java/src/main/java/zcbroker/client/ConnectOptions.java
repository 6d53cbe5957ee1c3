package zcbroker.client;

import java.time.Duration;
import java.util.List;
import java.util.Optional;
import zcbroker.v1.StartPolicy;
import zcbroker.v1.WireLane;
import zcbroker.v1.World;

/**
 * What to connect to. Make one with {@link #of} and change what differs.
 *
 * @param service the kind of daemon: 1 to 64 characters of a-z, 0-9 and '-'
 * @param version the version the daemon must have, exactly
 * @param acceptedLanes the wire lanes the caller can speak, the best first; empty: it takes what there is
 * @param clientName who is asking, for people
 * @param clientVersion at most 128 bytes
 * @param startPolicy whether the broker may start a daemon
 * @param world empty: {@link Zcbroker#ownWorld}
 * @param deadline of the whole call; a direct connection is tried once in any case
 */
public record ConnectOptions(String service, String version, List<WireLane> acceptedLanes, String clientName,
    String clientVersion, StartPolicy startPolicy, Optional<World> world, Duration deadline) {

  /** {@code version} of {@code service}, over any lane, within 12 seconds. */
  public static ConnectOptions of(String service, String version) {
    return new ConnectOptions(service, version, List.of(), "zcbroker-java", "0.1.0",
        StartPolicy.START_POLICY_IF_NEEDED, Optional.empty(), Duration.ofSeconds(12));
  }

  public ConnectOptions withAcceptedLanes(List<WireLane> lanes) {
    return new ConnectOptions(service, version, List.copyOf(lanes), clientName, clientVersion, startPolicy, world,
        deadline);
  }

  public ConnectOptions withClient(String name, String itsVersion) {
    return new ConnectOptions(service, version, acceptedLanes, name, itsVersion, startPolicy, world, deadline);
  }

  public ConnectOptions withStartPolicy(StartPolicy policy) {
    return new ConnectOptions(service, version, acceptedLanes, clientName, clientVersion, policy, world, deadline);
  }

  public ConnectOptions withWorld(World other) {
    return new ConnectOptions(service, version, acceptedLanes, clientName, clientVersion, startPolicy,
        Optional.of(other), deadline);
  }

  public ConnectOptions withDeadline(Duration other) {
    return new ConnectOptions(service, version, acceptedLanes, clientName, clientVersion, startPolicy, world, other);
  }
}
