// Package debian turns a list of Debian packages into layers, with no base
// image, no dpkg, no apt, and no maintainer script run.
//
// A request names a suite and packages. An archive is a Debian mirror with its
// security archive; a suite of it is described by InRelease, a signed list of
// the SHA-256 of every index, and an index (Packages) lists packages with the
// SHA-256 of every .deb. Resolving follows Depends and Pre-Depends from the
// packages asked for to their closure, and pins it in a lock: every package
// with version, path and digest. From there on the lock alone is read: fetching
// fills a cache that is addressed by content, and layers are made of it with no
// network, no index and no signature.
//
// A maintainer script is a program of a package that dpkg would run at
// installation. None is run here. What the scripts of common packages do is
// written down as fix-ups, which are data; alternatives, sysusers.d and
// tmpfiles.d are read as data too, and the report names every script that was
// not run.
//
// The whole file system is planned before it is split into layers, so that
// links, the merged /usr and the metadata of shared folders are right in each
// of them, and so that every program in it is known to find its libraries.
//
// What it is not: a solver (each name is offered in its latest version alone,
// and no decision is taken back, which is enough for one release of Debian and
// may refuse a mix of them), or a dpkg: an image that lacks packages which only
// scripts need cannot be upgraded by apt. Libraries that are loaded by dlopen
// are not checked, and there is no ld.so.cache, so that a library outside of
// the folders that the loader knows by itself is an error.
package debian
