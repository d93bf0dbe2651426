"""The verdict as JUnit XML, which every CI system shows: a test case per objective, and one for the generator."""

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from load.result import RunResult
from load.verdict import Outcome, Verdict

GENERATOR_CASE = "the generator kept up"


def junit_xml(result: RunResult, verdict: Verdict) -> str:
    """Write it. What broke is a failure; what could not be judged is an error; what need not be is skipped."""
    suite = TestSuite(f"load/{verdict.scenario}")
    suite.timestamp = result.started_at
    suite.add_property("target", result.target)
    for name, value in result.environment.items():
        suite.add_property(name, value)
    for outcome in verdict.outcomes:
        suite.add_testcase(_case(verdict.scenario, outcome))
    generator = TestCase(GENERATOR_CASE, f"load.{verdict.scenario}", 0.0)
    if verdict.saturated:
        generator.result = [Error(f"the generator was saturated: {verdict.saturated}", "GeneratorSaturated")]
    suite.add_testcase(generator)
    suite.time = result.duration_s
    xml = JUnitXml("load")
    xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    return _text(xml)


def _case(scenario: str, outcome: Outcome) -> TestCase:
    case = TestCase(outcome.objective, f"load.{scenario}", 0.0)
    case.system_out = f"{outcome.message}\n{outcome.why}"
    match outcome.status:
        case "broken":
            case.result = [Failure(outcome.message, "ObjectiveBroken")]
            case.result[0].text = outcome.why
        case "void":
            case.result = [Error(outcome.message, "ObjectiveVoid")]
        case "skipped":
            case.result = [Skipped(outcome.message)]
    return case


def _text(xml: JUnitXml) -> str:
    text = xml.tostring()  # type: ignore[no-untyped-call]
    return text.decode() if isinstance(text, bytes) else str(text)
