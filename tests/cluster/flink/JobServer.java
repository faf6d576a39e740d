import org.apache.beam.runners.flink.FlinkJobServerDriver;

/**
 * Beam's job server, which would send every package that it was started with along with each job: 150 MB, and seconds
 * for each of the cluster's parts. Flink is started with the same ones, so it is to find none.
 */
class JobServer {
    public static void main(String[] arguments) throws Exception {
        System.setProperty("java.class.path", "");
        FlinkJobServerDriver.main(arguments);
    }
}
