def test_x(host):
    assert host.file("/etc/debian_version").exists
