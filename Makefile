# The README names two of these: `make demo` and `make test`. Both install what they need, from Debian and PyPI.

PYTHON := /usr/bin/python3
VENV := .venv
RUN_PACKAGES := nftables iproute2 python3 python3-venv python3-lxml
TEST_PACKAGES := libvirt-daemon-system libvirt-clients qemu-system-x86 busybox-static dnsmasq-base file gcc libc6-dev cpio kmod \
	libvirt-daemon-config-nwfilter python3-libvirt apparmor ebtables iptables conntrack procps git openvswitch-switch debootstrap graphviz python3-graphviz secilc
DESTDIR ?=
PREFIX ?= /usr
PACKAGE := /usr/lib/python3/dist-packages/nwfilter_hook
HOOKS := /etc/libvirt/hooks
UNITS := /lib/systemd/system
ZSH_FUNCTIONS := /usr/share/zsh/vendor-completions
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' nwfilter_hook/__init__.py)
# what a package is made of, and its tools
SOURCES := CHANGELOG.md CONTRIBUTING.md LICENSE MANIFEST.in Makefile README.md filters hooks nwfilter_hook packaging pyproject.toml \
	setup.cfg setup.py
DEB_PACKAGES := build-essential debhelper dh-python python3-all python3-docutils lintian
RPM_PACKAGES := cpio rpm rpmlint python3-docutils
define INSTALL_LAUNCHER
	install -d $(DESTDIR)$(HOOKS)/qemu.d
	sed 's|^program=.*|program=$(PROGRAM)|' hooks/launch >$(DESTDIR)$(HOOKS)/.50-nwfilter-hook
	chmod 755 $(DESTDIR)$(HOOKS)/.50-nwfilter-hook
	mv -T $(DESTDIR)$(HOOKS)/.50-nwfilter-hook $(DESTDIR)$(HOOKS)/qemu.d/50-nwfilter-hook
endef

.DELETE_ON_ERROR:
.PHONY: demo picture test lint debian13 bench bench-libvirt soak conformance man deb rpm install hook trees clean

demo: $(VENV)/demo-ready
	$(VENV)/bin/python tests/demo.py

# The picture of it in the README.
picture: $(VENV)/demo-ready
	$(VENV)/bin/python tests/demo.py --picture packaging/demo.svg

test: $(VENV)/test-ready
	$(VENV)/bin/python -m pytest

lint: $(VENV)/test-ready
	$(VENV)/bin/python -m pytest tests/unit/test_lint.py

# The demo, and the tests that depend on nft or Python, in a Debian 13 beside this system; `make test` has it too.
debian13: $(VENV)/test-ready
	$(VENV)/bin/python -m pytest tests/debian13

# Figures as one table: tests/bench/README.md. BENCH='hook --json FILE' is for its arguments.
bench: $(VENV)/test-ready
	$(VENV)/bin/python tests/bench/run.py $(BENCH)

# The same, against libvirt's own driver; it needs minutes to get its rules in place.
bench-libvirt: $(VENV)/test-ready
	$(VENV)/bin/python tests/bench/run.py libvirt $(BENCH)

# The evaluator against the kernel, longer than in `make test`, with another seed each time.
conformance: $(VENV)/test-ready
	$(VENV)/bin/python -m tests.conformance.run --filters 5000 --frames 200 --seed $$(date +%s)

# A filter redefined 1000 times under a flood; `make test` does it a hundred times.
soak: $(VENV)/test-ready
	NWFILTER_HOOK_REDEFINITIONS=1000 $(VENV)/bin/python -m pytest --timeout 1500 tests/host/test_no_gap.py

$(VENV)/demo-ready: Makefile setup.cfg
	@echo "Installing from Debian: $(RUN_PACKAGES); from PyPI, into $(VENV): click rich scapy"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(RUN_PACKAGES)
	$(PYTHON) -m venv --system-site-packages $(VENV)
	$(VENV)/bin/pip install --quiet click rich scapy
	@touch $@

$(VENV)/test-ready: $(VENV)/demo-ready
	@echo "Installing from Debian: $(TEST_PACKAGES) $(DEB_PACKAGES) $(RPM_PACKAGES)"
	@echo "and from PyPI, into $(VENV): what setup.cfg lists for tests"
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(TEST_PACKAGES) $(DEB_PACKAGES) $(RPM_PACKAGES)
	$(VENV)/bin/pip install --quiet --editable '.[test]'
	@touch $@

# The pages of packaging/man, by docutils (python3-docutils). man shall not break a command at a hyphen of its own.
RST2MAN := $(firstword $(wildcard $(VENV)/bin/rst2man) rst2man)
PAGES := $(patsubst packaging/man/%.rst,build/man/%,$(wildcard packaging/man/*.rst))

man: $(PAGES)

build/man/%: packaging/man/%.rst Makefile
	@mkdir -p build/man
	$(RST2MAN) $< $@
	sed -i '/^\.TH /a .nr HY 0\n.hy 0\n.ad l' $@

# What is committed, and nothing else; of a release, which has no history, what is there.
build/source: FORCE
	@rm -rf build/nwfilter-hook-$(VERSION) && mkdir -p build/nwfilter-hook-$(VERSION)
	@if test -e .git; then changed=$$(git status --porcelain -- $(SOURCES)) || exit 1; \
		if test -n "$$changed"; then printf 'not built: commit these changes, or stash them\n%s\n' "$$changed" >&2; exit 1; fi; \
		git archive HEAD -- $(SOURCES); \
	else tar --exclude=__pycache__ --exclude='*.egg-info' -cf - $(SOURCES); fi | tar -xf - -C build/nwfilter-hook-$(VERSION)
	@test -e build/nwfilter-hook-$(VERSION)/Makefile
.PHONY: FORCE

# dist/nwfilter-hook_VERSION_all.deb, for every release of Debian and Ubuntu.
deb: build/deb-ready build/source
	rm -rf build/deb && mkdir -p build/deb dist
	cp -r build/nwfilter-hook-$(VERSION) build/deb/
	cp -r packaging/debian build/deb/nwfilter-hook-$(VERSION)/
	cd build/deb/nwfilter-hook-$(VERSION) && dpkg-buildpackage --build=binary --no-sign
	lintian --fail-on error,warning --allow-root build/deb/*.changes
	cp build/deb/*.deb dist/

# dist/nwfilter-hook-VERSION-1.noarch.rpm, for every release of Fedora and its like.
rpm: build/rpm-ready build/source
	rm -rf build/rpm && mkdir -p build/rpm/SOURCES dist
	tar -C build -czf build/rpm/SOURCES/nwfilter-hook-$(VERSION).tar.gz nwfilter-hook-$(VERSION)
	rpmbuild -bb --nodeps --define "_topdir $(CURDIR)/build/rpm" packaging/rpm/nwfilter-hook.spec
	rpmlint --strict --rpmlintrc packaging/rpm/rpmlintrc packaging/rpm/nwfilter-hook.spec build/rpm/RPMS/noarch/*.rpm
	cp build/rpm/RPMS/noarch/*.rpm dist/

build/rpm-ready: Makefile
	@mkdir -p build
	dpkg --status $(RPM_PACKAGES) >/dev/null 2>&1 || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(RPM_PACKAGES); }
	@touch $@

build/deb-ready: Makefile
	@mkdir -p build
	dpkg --status $(DEB_PACKAGES) >/dev/null 2>&1 || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(DEB_PACKAGES); }
	@touch $@

# Into a system as root, or with DESTDIR into a package; over an older one, with guests that run. The package changes as a
# whole, and `files` tells the hook whether it has. Last comes what libvirt starts, in one step and never half: all that
# is in qemu.d is a hook.
install: PROGRAM := $(PREFIX)/share/nwfilter-hook/hooks/qemu
install:
	rm -rf $(DESTDIR)$(PACKAGE).new $(DESTDIR)$(PACKAGE).old
	cd nwfilter_hook && for file in $$(find . -name '*.py' -o -name py.typed); do \
		install -D -m 644 $$file $(DESTDIR)$(PACKAGE).new/$$file || exit 1; done
	cd $(DESTDIR)$(PACKAGE).new && find . -name '*.py' -printf '%s %P\n' | LC_ALL=C sort >files
	if test -e $(DESTDIR)$(PACKAGE); then mv -T $(DESTDIR)$(PACKAGE) $(DESTDIR)$(PACKAGE).old; fi
	mv -T $(DESTDIR)$(PACKAGE).new $(DESTDIR)$(PACKAGE)
	rm -rf $(DESTDIR)$(PACKAGE).old
	install -D -m 755 packaging/nwfilter-hook $(DESTDIR)$(PREFIX)/bin/nwfilter-hook
	install -d $(DESTDIR)$(UNITS) $(DESTDIR)$(PREFIX)/share/nwfilter-hook/prometheus $(DESTDIR)$(PREFIX)/share/nwfilter-hook/selinux
	install -m 644 packaging/systemd/* $(DESTDIR)$(UNITS)/
	install -m 644 packaging/prometheus/* $(DESTDIR)$(PREFIX)/share/nwfilter-hook/prometheus/
	install -m 644 packaging/selinux/* $(DESTDIR)$(PREFIX)/share/nwfilter-hook/selinux/
	install -D -m 644 packaging/journald/nwfilter-hook.catalog \
		$(DESTDIR)$(PREFIX)/lib/systemd/catalog/nwfilter-hook.catalog
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(ZSH_FUNCTIONS)
	install -D -m 644 packaging/tmpfiles.d/nwfilter-hook.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/nwfilter-hook.conf
	install -m 644 packaging/completion/nwfilter-hook.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/nwfilter-hook
	install -m 644 packaging/completion/_nwfilter-hook $(DESTDIR)$(ZSH_FUNCTIONS)/
	install -D -m 644 packaging/completion/nwfilter-hook.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/nwfilter-hook.fish
	install -D -m 755 hooks/qemu $(DESTDIR)$(PROGRAM)
	install -D -m 755 hooks/launch $(DESTDIR)$(PREFIX)/share/nwfilter-hook/hooks/launch
	install -d $(DESTDIR)$(PREFIX)/share/nwfilter-hook/filters $(DESTDIR)/etc/nwfilter-hook/filters
	install -m 644 filters/*.xml $(DESTDIR)$(PREFIX)/share/nwfilter-hook/filters/
	install -d $(DESTDIR)$(PREFIX)/share/nwfilter-hook/filters/tests
	install -m 644 filters/tests/*.yaml $(DESTDIR)$(PREFIX)/share/nwfilter-hook/filters/tests/
	test -e $(DESTDIR)/etc/nwfilter-hook/nwfilter-hook.conf || \
		install -m 644 packaging/nwfilter-hook.conf $(DESTDIR)/etc/nwfilter-hook/nwfilter-hook.conf
	@if command -v $(RST2MAN) >/dev/null; then $(MAKE) --no-print-directory man && \
		for page in $(PAGES); do install -D -m 644 $$page \
			$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit 1; done; \
	else echo "no manual pages: they need rst2man, of Debian's python3-docutils" >&2; fi
	$(INSTALL_LAUNCHER)

# libvirt starts this checkout.
hook: PROGRAM := $(CURDIR)/hooks/qemu
hook:
	$(INSTALL_LAUNCHER)

# The pictures of `tree` in the README.
trees: $(VENV)/test-ready
	for name in clean-traffic test-eth0; do \
		$(VENV)/bin/python -m nwfilter_hook tree $$name --filters packaging/examples --svg packaging/pictures/$$name.svg || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info
