"""HTTP/3, spoken by curl beside the servers to both load balancers."""

from conftest import SERVERS
from test_haproxy import LBS, SITE, ask, run, runtime

CLIENT = "172.30.57.21"
CURL = f"curl --silent --show-error --max-time 5 --http3-only --cacert /root/root.crt --resolve {SITE}:443"


def test_http3_is_spoken_beside_the_other_versions_which_tell_of_it(lb):
    assert ask(lb).headers["Alt-Svc"] == 'h3=":443"; ma=86400'
    answer = run(SERVERS, f"{CURL}:{LBS[lb]} --include https://{SITE}/")
    assert answer.startswith("HTTP/3 200"), answer
    assert "x-served-by: web" in answer
    assert "strict-transport-security: " in answer


def test_a_client_of_http3_is_counted_as_any_other(lb):
    runtime(lb, "clear table www")  # others ask from this address, too
    run(SERVERS, f"{CURL}:{LBS[lb]} https://{SITE}/[1-5]")
    counted = runtime(lb, f"show table www key ::ffff:{CLIENT}")
    assert int(counted.rpartition("http_req_rate(10000)=")[2].split()[0]) >= 5, counted
