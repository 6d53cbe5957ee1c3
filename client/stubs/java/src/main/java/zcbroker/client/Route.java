package zcbroker.client;

import java.util.List;
import zcbroker.v1.WireLane;

/**
 * What the broker said of a daemon.
 *
 * @param source who said so
 * @param version the version that runs
 * @param lanes what the daemon understands, the best first; empty where its broker does not tell
 * @param pid who listens: process id, unsigned; 0 where it is not known
 * @param startTime that process' start in clock ticks since boot, unsigned
 * @param bootId and the boot
 * @param generation a route of a higher one replaces one of a lower; unsigned
 */
public record Route(RouteSource source, String version, List<WireLane> lanes, int pid, long startTime, String bootId,
    long generation) {}
