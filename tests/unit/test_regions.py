"""Networks are compiled to a map in which every address has the region that it should have."""

import gzip
import ipaddress
import time
import timeit
from itertools import pairwise
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible_collections.foobar.webstack.plugins.module_utils.regions import compile_map
from hypothesis import given, settings
from hypothesis import strategies as st

EU = {"name": "eu", "countries": ["DE", "FR"]}
US = {"name": "us", "countries": ["US"]}
REGIONS = [EU, US, {"name": "rest"}]
NO_COUNTRIES = [{"name": "eu"}, {"name": "us"}]


@pytest.fixture
def file(tmp_path):
    def file(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return file


def compiled(*arguments, default="rest", **options):
    lines, faults = compile_map(*arguments, default=default, **options)
    assert faults == []
    return lines


def refused(*arguments, default="us", **options):
    lines, faults = compile_map(*arguments, default=default, **options)
    assert lines == []
    return faults


# What may be given

DBIP = "0.0.0.0,0.255.255.255,ZZ\n1.0.0.0,1.0.2.255,DE\n1.0.3.0,1.0.3.255,FR\n1.0.4.0,1.0.4.255,US\n2001::,2001:0:ffff:ffff:ffff:ffff:ffff:ffff,US\n"
COMPILED = ["1.0.0.0/22 eu", "1.0.4.0/24 us", "2001::/32 us"]


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"dbip.csv": DBIP}, id="DB-IP"),
        pytest.param({"dbip.csv.gz": DBIP}, id="compressed"),
        pytest.param({"dbip.csv": "\ufeff" + DBIP.replace("\n", "\r\n")}, id="written on Windows"),
        pytest.param({"dbip.csv": "".join(reversed(DBIP.splitlines(keepends=True)))}, id="in any order"),
        pytest.param(
            {
                "4.csv": '"0","16777215","-","-"\n"16777216","16777983","DE","Germany"\n"16777984","16778239","FR","France"\n'
                '"16778240","16778495","US","United States"\n',
                "6.csv": '"0","281470681743359","-","-"\n"281470698520576","281470698521343","DE","Germany"\n'
                '"42540488161975842760550356425300246528","42540488241204005274814694018844196863","US","United States"\n',
            },
            id="IP2Location, where the file of IPv6 has IPv4 too",
        ),
        pytest.param(
            {
                "GeoLite2-Country-Blocks-IPv4.csv": "network,geoname_id,registered_country_geoname_id,represented_country_geoname_id\n"
                "1.0.0.0/23,1,2,\n1.0.2.0/24,1,,\n1.0.3.0/24,,3,\n1.0.4.0/24,2,1,\n9.0.0.0/8,,,\n",
                "GeoLite2-Country-Blocks-IPv6.csv": "network,geoname_id,registered_country_geoname_id\n2001::/32,2,2\n",
                "GeoLite2-Country-Locations-en.csv": "geoname_id,locale_code,continent_code,continent_name,country_iso_code,country_name\n"
                "1,en,EU,Europe,DE,Germany\n2,en,NA,North America,US,United States\n3,en,EU,Europe,FR,France\n4,en,EU,Europe,,\n",
            },
            id="GeoLite2",
        ),
        pytest.param(
            {
                "lite.csv": "network,country,country_code,continent\n1.0.0.0/23,Germany,DE,Europe\n1.0.2.0/24,Germany,DE,Europe\n"
                "1.0.3.0/24,France,FR,Europe\n1.0.4.0/24,United States,US,NA\n2001::/32,United States,US,NA\n"
            },
            id="a header",
        ),
    ],
)
def test_a_country_database_is_understood_in_its_form(file, files):
    databases = [file(text, name) for name, text in files.items()]
    assert compiled(REGIONS, databases=databases) == COMPILED


def test_networks_and_tables_count_before_databases_and_the_smaller_network_before_the_larger(file):
    regions = [EU | {"networks": ["1.0.0.0/16", "2001:db8::/32"]}, US | {"networks": ["1.0.9.9"]}, {"name": "rest"}]
    table = file("# the offices\nnetwork,region\n\n1.0.0.0/24 , us\n2001:db8:1::/48,us\n")
    database = file("1.0.0.0,1.0.0.127,FR\n1.1.0.0,1.1.0.0,DE\n3.0.0.0,3.0.0.255,US\n", "dbip.csv")
    lines = compiled([*regions], tables=[table], databases=[database])
    assert region_of("1.0.0.1", lines) == "us"
    assert region_of("1.0.1.1", lines) == "eu"
    assert region_of("1.0.9.9", lines) == "us"
    assert region_of("1.0.9.8", lines) == "eu"
    assert region_of("1.1.0.0", lines) == "eu"
    assert region_of("3.0.0.7", lines) == "us"
    assert region_of("4.0.0.7", lines) is None
    assert region_of("2001:db8::1", lines) == "eu"
    assert region_of("2001:db8:1::1", lines) == "us"


def test_what_the_smaller_network_of_a_database_says_of_no_region_counts_too(file):
    databases = [
        file("1.0.0.0,1.0.0.255,DE\n", "a.csv"),
        file("1.0.0.128,1.0.0.255,JP\n1.0.1.0,1.0.1.255,FR\n1.0.2.0,1.0.2.0,US\n", "b.csv"),
    ]
    assert compiled(REGIONS, databases=databases) == ["1.0.0.0/25 eu", "1.0.1.0/24 eu", "1.0.2.0/32 us"]


def test_a_network_of_ipv6_says_nothing_of_ipv4():
    lines = compiled([{"name": "eu", "networks": ["::/0"]}, {"name": "us", "networks": ["192.0.2.0/24"]}], default="us")
    assert [line for line in lines if "." in line] == ["192.0.2.0/24 us"]
    assert region_of("::1", lines) == region_of("2001:db8::1", lines) == "eu"
    assert compiled([{"name": "all", "networks": ["0.0.0.0/0"]}], default="all") == ["0.0.0.0/0 all"]


# What may not


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("192.0.2.0/24", "give network,region, such as 192.0.2.0/24,eu"),
        ("192.0.2.0/24,eu,us", "give network,region, such as 192.0.2.0/24,eu"),
        ("192.0.2.0/33,eu", "give a network, such as 192.0.2.0/24 or 2001:db8::/32"),
        ("192.0.2.0/,eu", "give a network, such as 192.0.2.0/24 or 2001:db8::/32"),
        ("192.0.2.0/+8,eu", "give a network, such as 192.0.2.0/24 or 2001:db8::/32"),
        ("192.0.2,eu", "give a network, such as 192.0.2.0/24 or 2001:db8::/32"),
        ("192.0.2.01,eu", "give a network, such as 192.0.2.0/24 or 2001:db8::/32"),
        ("office,eu", "give a network, such as 192.0.2.0/24 or 2001:db8::/32"),
        ("192.0.2.ü,eu", "give a network, such as 192.0.2.0/24 or 2001:db8::/32"),
        ("192.0.2.7/24,eu", "the network is 192.0.2.0/24, and the address alone has no /24"),
        ("2001:db8::1/32,eu", "the network is 2001:db8::/32, and the address alone has no /32"),
        ("192.0.2.0/24,asia", "'asia' is none of haproxy_regions (eu, us)"),
    ],
)
def test_a_line_of_a_table_that_is_wrong_is_named_with_its_place(file, text, wrong):
    table = file(f"198.51.100.0/24,us\n# a remark\n{text}\n")
    assert refused(NO_COUNTRIES, tables=[table]) == [f"{table}, line 3 is {text!r}: {wrong}"]


def test_of_a_file_of_another_kind_the_first_faults_are_told(file):
    table = file("x\n" * 1000)
    faults = refused(NO_COUNTRIES, tables=[table])
    assert len(faults) == 11
    assert faults[-1] == f"{table} has 990 faults more"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("1.0.0.0,1.0.0.255", "give rows of first address,last address,country, or network and country"),
        ("1.0.0.0,1.0.0.256,DE", "give rows of first address,last address,country, or network and country"),
        ("1.0.0.9,1.0.0.0,DE", "give the first address, then the last one of the same kind"),
        ("1.0.0.0,2001::,DE", "give the first address, then the last one of the same kind"),
        ("1.0.0.0,1.0.0.255,Germany", "'Germany' is no country: give its two capital letters"),
    ],
)
def test_a_row_of_a_database_that_is_wrong_is_named_with_its_place(file, text, wrong):
    database = file(f"1.0.1.0,1.0.1.255,DE\n1.0.2.0,1.0.2.255,FR\n1.0.3.0,1.0.3.255,US\n{text}\n")
    assert refused(REGIONS, databases=[database]) == [f"{database}, line 4 is {text!r}: {wrong}"]


@pytest.mark.parametrize(
    ("text", "given"),
    [("", "empty"), ("<html>\n<body>", "no country database, it begins with '<html>'")],
)
def test_a_file_that_is_no_database_is_refused(file, text, given):
    database = file(text)
    assert refused(REGIONS, databases=[database])[0] == (
        f"{database} is {given}: give rows of first address,last address,country or of GeoLite2-Country-Blocks"
    )


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("dbip.csv.gz", DBIP.encode(), "Not a gzipped file"),
        ("dbip.csv.gz", gzip.compress(DBIP.encode())[:-12], "Compressed file ended"),
        ("dbip.csv.gz", gzip.compress(DBIP.encode())[:12] + b"x" * 50, "Error -3"),
        ("country.mmdb", b"x" * 200_000, "field larger than field limit"),
    ],
)
def test_a_database_that_cannot_be_read_is_named(tmp_path, name, content, wrong):
    (tmp_path / name).write_bytes(content)
    assert refused(REGIONS, databases=[tmp_path / name])[0].startswith(f"{tmp_path / name} cannot be read: {wrong}")


def test_the_countries_of_geolite2_may_have_empty_lines_but_no_short_ones(file):
    blocks = file("network,geoname_id\n1.0.0.0/24,1\n", "blocks.csv")
    locations = file("geoname_id,country_iso_code\n1,DE\n\n", "locations.csv")
    eu = [{"name": "eu", "countries": ["DE"]}]
    assert compiled(eu, default="eu", databases=[blocks, locations]) == ["1.0.0.0/24 eu"]
    locations = file("geoname_id,country_iso_code\n1,DE\n2\n", "locations.csv")
    assert refused(eu, default="eu", databases=[blocks, locations]) == [f"{locations}, line 3 is '2': give 2 columns"]


def test_an_empty_table_is_refused(file):
    table = file("# nothing yet\n")
    assert refused(NO_COUNTRIES, tables=[table]) == [
        f"{table} is empty: give lines of network,region, such as 192.0.2.0/24,eu"
    ]


def test_a_header_alone_is_an_empty_database(file):
    database = file("network,country\n")
    assert refused(REGIONS, databases=[database]) == [f"{database} is empty: give rows of networks and countries"]


def test_geolite2_without_its_countries_is_refused(file):
    database = file("network,geoname_id\n1.0.0.0/24,1\n")
    assert refused(REGIONS, databases=[database]) == [
        f"{database} names countries by number: give GeoLite2-Country-Locations-en.csv in haproxy_country_databases too"
    ]


def test_a_network_in_two_regions_is_refused_wherever_they_are_said(file):
    table = file("192.0.2.0/24,us\n198.51.100.0/24,eu\n198.51.100.0/24,eu\n")
    regions = [{"name": "eu", "networks": ["192.0.2.0/24"]}, {"name": "us"}]
    assert refused(regions, tables=[table]) == [
        f"192.0.2.0/24 is in eu by haproxy_regions[eu].networks and in us by {table}, line 1: keep one"
    ]
    database = file("1.0.0.0,1.0.0.255,DE\n1.0.0.128,1.0.1.255,US\n1.0.2.0,1.0.2.255,FR\n", "dbip.csv")
    other = file("1.0.0.0,1.0.0.255,US\n1.0.9.0,1.0.9.9,FR\n", "other.csv")
    assert refused(REGIONS, databases=[other, database]) == [
        f"1.0.0.0/24 is in us by {other}, line 1 and in eu by {database}, line 1: keep one"
    ]


@pytest.mark.parametrize(
    ("regions", "default", "fault"),
    [
        (
            [{"name": "e u"}],
            "e u",
            "haproxy_regions[0].name is 'e u': use letters, digits, '.', '_' and '-' only, and begin with a letter or digit",
        ),
        (
            [{"name": "eu"}, {"name": "eu"}],
            "eu",
            "haproxy_regions[1].name is 'eu', as is that of another: give each a name of its own",
        ),
        (
            [{"name": "eu"}],
            "",
            "haproxy_default_region is '', which is none of haproxy_regions: name the region of everybody else (eu)",
        ),
        (
            [],
            "eu",
            "haproxy_default_region is 'eu', which is none of haproxy_regions: name the region of everybody else (there are none)",
        ),
        (
            [{"name": "eu", "networks": ["192.0.2"]}],
            "eu",
            "haproxy_regions[eu].networks has '192.0.2': give a network, such as 192.0.2.0/24 or 2001:db8::/32",
        ),
        (
            [{"name": "eu", "countries": ["DE"]}],
            "eu",
            "haproxy_regions[eu].countries is given, but haproxy_country_databases is []: name the CSV files that say where a country's networks are",
        ),
    ],
)
def test_regions_that_cannot_be_are_refused(regions, default, fault):
    assert refused(regions, default=default) == [fault]


@pytest.mark.parametrize(
    ("countries", "fault"),
    [
        (["de"], "haproxy_regions[eu].countries has 'de': give a country's two capital letters, such as DE"),
        (
            ["False"],
            "haproxy_regions[eu].countries has 'False': give a country's two capital letters, such as DE ('NO' in quotes is Norway)",
        ),
        (["UK"], "haproxy_regions[eu].countries has UK, which is in no country database: give its ISO 3166-1 code"),
        (["US"], "haproxy_regions[us].countries has US, which is in 'eu' too: keep it in one"),
    ],
)
def test_countries_that_cannot_be_are_refused(file, countries, fault):
    assert refused([EU | {"countries": countries}, US], databases=[file(DBIP)]) == [fault]


# What must hold of every input


def region_of(address, lines):
    """As HAProxy does it: the longest prefix of the map."""
    address = ipaddress.ip_address(address)
    entries = ((ipaddress.ip_network(text), region) for text, region in map(str.split, lines))
    around = [(net.prefixlen, region) for net, region in entries if net.version == address.version and address in net]
    return max(around)[1] if around else None


def networks_of(base, width):
    """Networks in a small part of the address space, so that they meet."""
    return st.builds(
        lambda offset, prefix: str(ipaddress.ip_network((base + offset, prefix), strict=False)),
        st.integers(0, 255),
        st.integers(width - 9, width),
    )


NETWORKS = networks_of(int(ipaddress.ip_address("192.0.2.0")), 32) | networks_of(
    int(ipaddress.ip_address("2001:db8::")), 128
)
EDGE = st.sampled_from(["0.0.0.0/0", "0.0.0.0/1", "255.255.255.255/32", "::/0", "::/64", "fe00::/7", "ffff::/16"])
NAMES = st.sampled_from(["eu", "us", "rest"])
TABLES = st.dictionaries(NETWORKS | EDGE, NAMES, min_size=1, max_size=12)


def probes(*tables):
    for text in (text for table in tables for text in table):
        net = ipaddress.ip_network(text)
        for number in {int(net[0]) - 1, int(net[0]), int(net[-1]), int(net[-1]) + 1}:
            if 0 <= number < 2**net.max_prefixlen:
                yield type(net[0])(number)


def expected(address, *layers):
    """The region by the longest prefix of the first layer that has the address in one of its networks."""
    for layer in layers:
        around = [(net.prefixlen, region) for net, region in layer if net.version == address.version and address in net]
        if around:
            return max(around)[1]
    return None


@settings(deadline=None)
@given(
    TABLES,
    st.none()
    | st.dictionaries(NETWORKS | EDGE, st.sampled_from(["DE", "FR", "US", "JP", ""]), min_size=1, max_size=12),
)
def test_every_address_has_the_region_of_the_longest_prefix_and_no_two_networks_overlap(
    tmp_path_factory, table, database
):
    directory = tmp_path_factory.mktemp("regions")
    (directory / "table").write_text("".join(f"{net},{region}\n" for net, region in table.items()))
    country = {"DE": "eu", "FR": "eu", "US": "us"}
    layers = [[(ipaddress.ip_network(net), region) for net, region in table.items()]]
    databases = []
    if database:
        ends = {"DE": "240.0.0.0/32", "FR": "240.0.0.1/32", "US": "240.0.0.2/32"}
        rows = database | {net: code for code, net in ends.items()}
        nets = [(ipaddress.ip_network(net), code) for net, code in rows.items()]
        (directory / "database").write_text("".join(f"{net[0]},{net[-1]},{code}\n" for net, code in nets))
        databases = [directory / "database"]
        layers.append([(net, country.get(code)) for net, code in nets])
    lines = compiled(
        REGIONS if database else [{"name": "eu"}, {"name": "us"}, {"name": "rest"}],
        tables=[directory / "table"],
        databases=databases,
    )
    for address in probes(table, database or {}):
        assert region_of(address, lines) == expected(address, *layers), address
    nets = sorted((ipaddress.ip_network(line.split()[0]) for line in lines), key=lambda net: (net.version, net))
    assert not any(a.version == b.version and a.overlaps(b) for a, b in pairwise(nets))


@settings(deadline=None)
@given(st.lists(st.integers(0, 600), min_size=2, max_size=20, unique=True))
def test_ranges_of_addresses_are_cut_into_the_fewest_networks(tmp_path_factory, ends):
    file = tmp_path_factory.mktemp("regions") / "ranges.csv"
    ends = sorted(ends)[: len(ends) // 2 * 2]
    base = ipaddress.ip_address("192.0.2.0")
    ranges = list(zip(ends[::2], ends[1::2], strict=True))
    file.write_text(
        "".join(f"{base + first},{base + last},DE\n" for first, last in ranges)
        + "9.0.0.0,9.0.0.0,FR\n9.0.0.2,9.0.0.2,US\n"
    )
    lines = compiled(REGIONS, databases=[file])
    wanted = [net for first, last in ranges for net in ipaddress.summarize_address_range(base + first, base + last)]
    assert {line.split()[0] for line in lines} == {str(net) for net in ipaddress.collapse_addresses(wanted)} | {
        "9.0.0.0/32",
        "9.0.0.2/32",
    }


def test_a_country_database_of_the_whole_world_costs_seconds(tmp_path):
    """Linear in its rows: four times the rows cost far from sixteen times the time."""

    def cost(rows):
        path = tmp_path / f"{rows}.csv"
        step = 2**32 // rows
        path.write_text(
            "".join(
                f"{ipaddress.ip_address(n * step)},{ipaddress.ip_address(n * step + step - 1)},{['DE', 'US', 'FR', 'JP'][n % 4]}\n"
                for n in range(rows)
            )
        )
        return timeit.timeit(lambda: compiled(REGIONS, databases=[path]), timer=time.process_time, number=1)

    assert cost(40_000) / cost(10_000) < 12


# The lookup


def lookup(**options):
    return lookup_loader.get("foobar.webstack.region_map", loader=DataLoader()).run([], {}, **options)[0]


def test_the_lookup_compiles_once_and_again_when_a_file_has_changed(file):
    table = file("192.0.2.0/24,eu\n")
    options = {"regions": NO_COUNTRIES, "default_region": "us", "tables": [str(table)]}
    first = lookup(**options)
    assert first["faults"] == []
    assert [line for line in Path(first["path"]).read_text().splitlines() if not line.startswith("#")] == [
        "192.0.2.0/24 eu"
    ]
    assert lookup(**options) == first
    file("192.0.2.0/24,us\n203.0.113.0/24,eu\n")
    assert lookup(**options)["path"] != first["path"]


def test_the_lookup_returns_faults_and_no_map(file):
    assert lookup(regions=NO_COUNTRIES, default_region="us", tables=[str(file("x,eu\n"))])["path"] == ""


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(
        AnsibleLookupError, match=r"haproxy_region_tables has '/nowhere.csv', which is no file on the control node"
    ):
        lookup(regions=NO_COUNTRIES, default_region="us", tables=["/nowhere.csv"])
