"""Which of Beam's runners does a component's work when the pipeline's Beam arguments name none."""

from apache_beam.options.pipeline_options import StandardOptions

# By its path: Beam 2.62 does not know it by its short name.
IN_THIS_PROCESS = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def run_beam_in_this_process() -> None:
    """Makes Beam's in-memory Python runner this process's default; Beam arguments that name another still win.

    It is what Beam's own default, DirectRunner, comes down to, but newer releases of that first try Prism, a program
    that they download from the internet. To pass this runner as a Beam argument instead would have TFX build a package
    of itself for every component (`make_beam_dependency_flags`), which takes seconds and which nobody reads here.
    """
    StandardOptions.DEFAULT_RUNNER = IN_THIS_PROCESS
