"""Runs Autobahn's cases: python3 autobahn.py '{"server": "127.0.0.1:8080", "include": ["1.*"], "exclude": [], "parallel": 8}'

kosoku brings Autobahn's own cases with a runner for Python 3. One JSON object goes to stdout: the verdict on each case.
"""

import asyncio
import json
import os
import sys
from typing import Any

from kosoku import FailureError, run_fuzzingclient


def verdict(result: Any) -> dict[str, Any]:
    return {'behavior': result.behavior.value, 'code': result.remote_close_code}


async def main(options: dict[str, Any]) -> None:
    try:
        results = await run_fuzzingclient(
            options['server'], options['include'], options['exclude'], concurrency=options['parallel']
        )
    except FailureError as failure:
        # It has the results of all cases.
        results = failure.results
    print(json.dumps({result.case_id: verdict(result) for result in results}), flush=True)


asyncio.run(main(json.loads(sys.argv[1])))
# The runner's own threads may outlive the interpreter, which then aborts.
os._exit(0)
